"""Settings of a benchmark that cannot be meant, and the device that it measures on."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from stvideo.core.errors import StvideoError, nearest


def choose_device(name: str) -> torch.device:
    """Choose the device of a name, ``auto`` for the GPU if there is one; raises `StvideoError` if it is not here."""
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
