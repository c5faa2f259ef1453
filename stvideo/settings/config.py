"""Configuration: dataclasses, a YAML file over them, ``key=value`` overrides over that.

    config = load_config("configs/demo.yaml", ["train.lr=1e-3", "model.reduction.evit.keep_rate=0.5"])

An unknown key, a wrong type or an unreadable file raises `StvideoError` with one line.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from stvideo.core.errors import StvideoError, nearest
from stvideo.settings.plugins import import_plugins
from stvideo.settings.schema import Config

T = TypeVar("T")
COMMAND_LINE = "the command line"


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
    if base is not None:
        config = _merge(config, _spelled_out(copy.deepcopy(base)), "the checkpoint's configuration")
    layer = {} if path is None else _spelled_out(read_yaml(Path(path)))
    config = _merge(config, layer, str(path))
    result = _apply(config, overrides)
    # A checkpoint must not choose what is imported.
    if "plugins" in layer or any(text.startswith("plugins=") for text in overrides):
        import_plugins(result.plugins)
    return result  # type: ignore[no-any-return]


def read_settings(schema: type[T], overrides: Sequence[str], hint: str = "") -> T:
    """Read ``overrides`` (``key=value``) over the defaults of any dataclass; ``hint`` ends an error's line.

    Raises:
        StvideoError: unknown key or wrong type.
    """
    return _apply(OmegaConf.structured(schema), overrides, hint)  # type: ignore[no-any-return]


def to_dict(config: Any) -> dict[str, Any]:
    """Turn the configuration into plain dictionaries, lists and numbers."""
    return OmegaConf.to_container(OmegaConf.structured(config))  # type: ignore[return-value]


def to_yaml(config: Config) -> str:
    """Write the configuration as YAML that `load_config` reads back unchanged."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def _apply(config: Any, overrides: Sequence[str], hint: str = "") -> Any:
    """Merge ``key=value`` one by one into ``config``, and return the instance of its dataclass."""
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][\w.]*", key):
            raise StvideoError(f"{COMMAND_LINE}: {text!r} is not of the form key=value, e.g. train.lr=1e-3")
        try:
            current = OmegaConf.select(config, key)
            if OmegaConf.is_list(current) and not value.startswith("["):  # the brackets may be left out
                text = f"{key}=[{value}]"
            layer = OmegaConf.from_dotlist([text])
            if isinstance(current, str) and isinstance(OmegaConf.select(layer, key), int | float):
                OmegaConf.update(layer, key, value)  # text that looks like a number stays as it was written
        except (yaml.YAMLError, OmegaConfBaseException) as error:
            raise StvideoError(f"{COMMAND_LINE}: cannot read {text!r}: {' '.join(str(error).split())}") from None
        plain = _spelled_out(OmegaConf.to_container(layer))
        given = OmegaConf.select(OmegaConf.create(plain), key)
        config = _merge(config, plain, COMMAND_LINE, hint)
        if OmegaConf.is_dict(given):  # a mapping replaces the one before
            OmegaConf.update(config, key, given, merge=False)
    try:
        return OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise StvideoError(f"configuration: {str(error).splitlines()[0]}") from None


def _merge(config: Any, layer: dict[str, Any], origin: str, hint: str = "") -> Any:
    """Put ``layer`` over ``config``; raises `StvideoError` for a key or a type that does not fit."""
    for key, value in layer.items():
        section = OmegaConf.get_type(config, key) if key in config else None
        if hasattr(section, "__dataclass_fields__") and not isinstance(value, dict):
            raise StvideoError(f"{origin}: '{key}' is a section of settings, not a value")
    try:
        return OmegaConf.merge(config, OmegaConf.create(layer))
    except ConfigKeyError as error:
        key = str(error.full_key)
        here = OmegaConf.select(config, key.rpartition(".")[0]) if "." in key else config
        raise StvideoError(
            f"{origin}: unknown key '{key}'{_nearest_key(key, config)}; known here: {', '.join(here)}{hint}"
        ) from None
    except OmegaConfBaseException as error:
        where = f"{error.full_key}: " if error.full_key else ""
        raise StvideoError(f"{origin}: {where}{_in_plain_words(str(error).splitlines()[0])}") from None


def _nearest_key(key: str, config: Any) -> str:
    """Hint at the key that was probably meant: one of that name in another section, or a similar one."""
    keys = [str(name) for name in config]
    keys += [f"{name}.{inner}" for name in keys if OmegaConf.is_dict(config[name]) for inner in config[name]]
    elsewhere = [known for known in keys if known.endswith(f".{key}")]
    return f" (did you mean '{elsewhere[0]}'?)" if elsewhere else nearest(key, keys)


def _in_plain_words(reason: str) -> str:
    """Say OmegaConf's reasons without its class names."""
    if "ListConfig" in reason:
        return "expected a list, e.g. [256, 320]"
    if "'DictConfig' to string" in reason:
        return "expected text, not 'key: value'"
    if "Incompatible value 'None'" in reason:
        return "must not be empty"
    return reason


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a mapping from a YAML file; raises `StvideoError` for anything else."""
    if not path.is_file():
        raise StvideoError(f"{path}: no such configuration file; see configs/ for ready ones")
    try:
        loaded = OmegaConf.to_container(OmegaConf.load(path))
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError, OSError) as error:
        raise StvideoError(f"{path}: not a readable YAML file: {' '.join(str(error).split())}") from None
    if not isinstance(loaded, dict):
        raise StvideoError(f"{path}: expected 'key: value' lines at the top level")
    return loaded  # type: ignore[return-value]


def _spelled_out(layer: Any) -> dict[str, Any]:
    """Write out ``reduction: evit``, and ``evit: null`` inside it, as ``{evit: {}}``."""
    model = layer.get("model")
    reduction = model.get("reduction") if isinstance(model, dict) else None
    if isinstance(reduction, str):
        model["reduction"] = {reduction: {}}
    elif isinstance(reduction, dict):
        model["reduction"] = {name: options or {} for name, options in reduction.items()}
    return layer  # type: ignore[no-any-return]
