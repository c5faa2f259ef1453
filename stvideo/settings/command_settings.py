"""Settings of a command, as a dataclass: ``key=value``, and ``--key value`` for those who expect it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, TypeVar, get_type_hints

import torch
import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from stvideo.core.errors import StvideoError, nearest

T = TypeVar("T")

PRECISIONS = ("fp32", "bf16")


def accept_dashes(argv: Sequence[str], schema: type) -> list[str]:
    """Rewrite ``--key value``, ``--key=value`` and, for switches, ``--key`` as ``key=value``.

    Args:
        argv: the command line without the program.
        schema: a dataclass; only the names of its fields are rewritten, with dashes for underscores.
    """
    hints = get_type_hints(schema)
    known = {f"--{field.name.replace('_', '-')}": field.name for field in fields(schema)}
    result: list[str] = []
    rest = list(argv)
    while rest:
        argument = rest.pop(0)
        option, has_value, value = argument.partition("=")
        if option not in known:
            result.append(argument)
        elif has_value:
            result.append(f"{known[option]}={value}")
        elif hints[known[option]] is bool:
            result.append(f"{known[option]}=true")
        elif rest and not rest[0].startswith("--"):
            result.append(f"{known[option]}={rest.pop(0)}")
        else:
            raise StvideoError(f"the command line: {option} needs a value, e.g. {option}=VALUE")
    return result


def read_settings(schema: type[T], overrides: Sequence[str], hint: str = "") -> T:
    """An instance of the dataclass ``schema`` with ``overrides`` (``key=value``) over its defaults.

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


def check_precision(value: str) -> None:
    """Raise `StvideoError` unless ``value`` is one of `PRECISIONS`."""
    if value not in PRECISIONS:
        raise StvideoError(f"precision={value}: choose {' or '.join(PRECISIONS)}{nearest(value, PRECISIONS)}")
