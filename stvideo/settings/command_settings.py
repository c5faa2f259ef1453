"""The settings of commands that have a dataclass of their own, read from ``key=value``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, TypeVar, get_type_hints

import torch
import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from stvideo.core.errors import StvideoError, nearest
from stvideo.settings.cli import split_arguments
from stvideo.settings.plugins import take_plugins

T = TypeVar("T")


def read_command_line(
    schema: type[T], argv: Sequence[str] | None, help_text: str | None = "", hint: str = "; --help tells more"
) -> tuple[list[str], T, list[str]]:
    """Read the command line of a command whose settings are the fields of a dataclass.

    A field of type bool may also be switched on as an option: ``--optimize`` is ``optimize=true``. ``plugins=`` is
    understood by every command.

    Args:
        schema: a dataclass of the settings and their defaults.
        argv: the command line without the program; None for the process's own.
        help_text: printed for ``--help``, after which the process ends with status 0.
        hint: ends the message about an unknown key.

    Returns:
        (what stands without a key, the settings, ``key.of.a.configuration=value``).

    Raises:
        StvideoError: an unknown key or option (the nearest known one is suggested), or a wrong type.
    """
    types = get_type_hints(schema)
    switches = {f"--{name.replace('_', '-')}": f"{name}=true" for name in types if types[name] is bool}
    positional, given = split_arguments(argv, help_text or "", tuple(switches))
    overrides = take_plugins(given)
    own = [text for text in overrides if "." not in text.partition("=")[0]]
    settings = read_settings(schema, own + [switches[text] for text in positional if text in switches], hint)
    return (
        [text for text in positional if text not in switches],
        settings,
        [text for text in overrides if text not in own],
    )


def read_settings(schema: type[T], overrides: Sequence[str], hint: str = "") -> T:
    """Read ``overrides`` (``key=value``) over the defaults of the dataclass ``schema``.

    ``hint`` ends the message about an unknown key. A list may be written without its brackets: ``batch_sizes=1,2,8``.

    Raises:
        StvideoError: unknown key or wrong type.
    """
    names = [field.name for field in fields(schema)]  # type: ignore[arg-type]
    hints = get_type_hints(schema)
    config: Any = OmegaConf.structured(schema)
    for text in overrides:
        key, _, value = text.partition("=")
        if key not in names:
            raise StvideoError(
                f"the command line: unknown setting {key!r}{nearest(key, names)}; there are: {', '.join(names)}{hint}"
            )
        if getattr(hints[key], "__origin__", None) is list and not value.startswith("["):
            value = f"[{value}]"
        try:
            parsed = value if hints[key] is str else yaml.safe_load(value)
            config = OmegaConf.merge(config, {key: parsed})
        except (OmegaConfBaseException, yaml.YAMLError) as error:
            raise StvideoError(f"the command line: {text}: {str(error).splitlines()[0]}") from None
    return OmegaConf.to_object(config)  # type: ignore[return-value]


def choose_device(name: str) -> torch.device:
    """``auto`` is the GPU if there is one; raises `StvideoError` for a device that is not here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise StvideoError(f"device={name}: no such kind of device; use auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise StvideoError(f"device={name}: this machine has no CUDA device, or torch was built without CUDA")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise StvideoError(f"device={name}: there are only {torch.cuda.device_count()} CUDA devices here")
    if device.type not in ("cpu", "cuda"):
        raise StvideoError(f"device={name}: the benchmark measures on cpu and cuda only")
    return device


def check_at_least(minimum: int, **values: int | None) -> None:
    """Raise `StvideoError` for a value below ``minimum``; None passes."""
    for name, value in values.items():
        if value is not None and value < minimum:
            raise StvideoError(f"{name}={value}: expected {minimum} or more")


def check_choice(choices: Sequence[str], **values: str) -> None:
    """Raise `StvideoError` for a value that is not one of ``choices``."""
    for name, value in values.items():
        if value not in choices:
            raise StvideoError(f"{name}={value}: choose {' or '.join(choices)}{nearest(value, choices)}")
