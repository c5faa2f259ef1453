"""Configuration: dataclasses, a YAML file over them, ``key=value`` overrides over that.

    config = load_config("configs/demo.yaml", ["train.lr=1e-3", "model.reduction.evit.keep_rate=0.5"])

An unknown key, a wrong type or an unreadable file raises `StvideoError` with one line.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from stvideo.core.errors import StvideoError, nearest
from stvideo.settings.plugins import import_plugins, split_names
from stvideo.settings.schema import (
    Config,
    DataConfig,
    EvalConfig,
    ModelConfig,
    PredictConfig,
    TrainConfig,
    VisualizeConfig,
)

__all__ = [
    "Config",
    "DataConfig",
    "EvalConfig",
    "ModelConfig",
    "PredictConfig",
    "TrainConfig",
    "VisualizeConfig",
    "load_config",
    "to_dict",
    "to_yaml",
]


def load_config(
    path: str | Path | None = None, overrides: Sequence[str] = (), base: dict[str, Any] | None = None
) -> Config:
    """Read ``path`` (YAML) and ``overrides`` (``a.b=value``) over the defaults, or over ``base``; import the plugins.

    Args:
        base: a configuration as nested dictionaries, such as the one in a checkpoint.

    Raises:
        StvideoError: the file is missing or not YAML, a key or a type is wrong, or a plugin cannot be imported.
    """
    config: Any = OmegaConf.structured(Config)
    layers: list[tuple[str, str | None, dict[str, Any]]] = []
    if base is not None:
        layers.append(("the checkpoint's configuration", None, copy.deepcopy(base)))
    if path is not None:
        layers.append((str(path), None, read_yaml(Path(path))))
    layers += [("the command line", *_parse_override(text)) for text in overrides]
    for origin, key, layer in layers:
        _check_keys(layer, Config, "", origin)
        _spell_out(layer)
        try:
            value = None if key is None else OmegaConf.select(OmegaConf.create(layer), key)
            config = OmegaConf.merge(config, OmegaConf.create(layer))
            if OmegaConf.is_dict(value):  # a mapping given on the command line replaces the one in the file
                OmegaConf.update(config, str(key), value, merge=False)
        except OmegaConfBaseException as error:
            where = getattr(error, "full_key", None)
            reason = _in_plain_words(str(error).splitlines()[0])
            raise StvideoError(f"{origin}: {where + ': ' if where else ''}{reason}") from None
    try:
        result: Any = OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise StvideoError(f"configuration: {str(error).splitlines()[0]}") from None
    given = layers if base is None else layers[1:]  # a checkpoint must not choose what is imported
    if any("plugins" in layer for _, _, layer in given):
        import_plugins(result.plugins)
    return result  # type: ignore[no-any-return]


def to_dict(config: Any) -> dict[str, Any]:
    """The configuration as plain dictionaries, lists and numbers."""
    return OmegaConf.to_container(OmegaConf.structured(config))  # type: ignore[return-value]


def to_yaml(config: Config) -> str:
    """The configuration as YAML that `load_config` reads back unchanged."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def _in_plain_words(reason: str) -> str:
    """OmegaConf's reasons without its class names."""
    if "ListConfig" in reason:
        return "expected a list, e.g. [256, 320]"
    if "'DictConfig' to string" in reason:
        return "expected text, not 'key: value'"
    if "Incompatible value 'None'" in reason:
        return "must not be empty"
    return reason


def read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise StvideoError(f"{path}: no such configuration file; see configs/ for ready ones")
    try:
        loaded = OmegaConf.to_container(OmegaConf.load(path))
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError, OSError) as error:
        raise StvideoError(f"{path}: not a readable YAML file: {' '.join(str(error).split())}") from None
    if not isinstance(loaded, dict):
        raise StvideoError(f"{path}: expected 'key: value' lines at the top level")
    return loaded  # type: ignore[return-value]


def _parse_override(text: str) -> tuple[str, dict[str, Any]]:
    """``"a.b=value"`` as its key and the nested mapping that it stands for."""
    if not re.match(r"^[A-Za-z_][\w.]*=", text):
        raise StvideoError(f"the command line: {text!r} is not of the form key=value, e.g. train.lr=1e-3")
    try:
        nested = OmegaConf.to_container(OmegaConf.from_dotlist([text]))
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise StvideoError(f"the command line: cannot read {text!r}: {' '.join(str(error).split())}") from None
    return text.split("=", 1)[0], nested  # type: ignore[return-value]


def _spell_out(layer: dict[str, Any]) -> None:
    """Write out ``reduction: evit`` and ``evit: null`` inside it as ``{evit: {}}``, and ``plugins: a`` as ``[a]``."""
    if isinstance(layer.get("plugins"), str):
        layer["plugins"] = split_names(layer["plugins"])
    model = layer.get("model")
    if isinstance(model, dict) and isinstance(model.get("reduction"), str):
        model["reduction"] = {model["reduction"]: {}}
    if isinstance(model, dict) and isinstance(model.get("reduction"), dict):
        model["reduction"] = {name: options or {} for name, options in model["reduction"].items()}


def _check_keys(layer: dict[str, Any], schema: Any, prefix: str, origin: str) -> None:
    """Refuse keys that ``schema`` (a dataclass) does not have, naming the nearest one that it has."""
    known = {f.name: f for f in fields(schema)}
    for key, value in layer.items():
        if key not in known:
            hint = _nearest_key(str(key), known, prefix)
            raise StvideoError(f"{origin}: unknown key '{prefix}{key}'{hint}; known here: {', '.join(known)}")
        section = known[key].default_factory
        if is_dataclass(section):
            if not isinstance(value, dict):
                raise StvideoError(f"{origin}: '{prefix}{key}' is a section of settings, not a value")
            _check_keys(value, section, f"{prefix}{key}.", origin)


def _nearest_key(key: str, known: Iterable[str], prefix: str) -> str:
    """A hint at the key that was probably meant: one of this section, or one of that name in another."""
    sections: dict[str, Any] = {f.name: f.default_factory for f in fields(Config) if is_dataclass(f.default_factory)}
    for name, section in sections.items():
        if key in {f.name for f in fields(section)}:
            return f" (did you mean '{name}.{key}'?)"
    return nearest(prefix + key, [prefix + name for name in known])
