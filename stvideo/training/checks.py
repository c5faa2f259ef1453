"""What only training has to check before anything slow happens: data, devices, trackers, files to start from."""

from __future__ import annotations

from pathlib import Path

import torch
from accelerate.tracking import get_available_trackers
from accelerate.utils import LoggerType

from stvideo.core.errors import StvideoError, nearest
from stvideo.data.clips.protocols import find_protocol
from stvideo.data.clips.reading import ClipReading
from stvideo.settings.checks import check_config
from stvideo.settings.config import Config


def check_training(config: Config) -> None:
    """`check_config`, and what only training needs: data, and files to start from."""
    check_config(config)
    ClipReading.from_config(config.data)
    for key in ("views", "during_training"):
        find_protocol(getattr(config.evaluate, key), f"evaluate.{key}")
    # Of this machine: a run may well be evaluated on one that has neither.
    _check_device(config.train.ema_device)
    _check_trackers(config.train.trackers)
    if not config.data.train:
        raise StvideoError(
            "data.train is not set: a list file, Kinetics CSV, Something-Something JSON or a folder of classes"
        )
    for key, path in (("init", config.init), ("train.teacher", config.train.teacher)):
        if path and not path.startswith("timm:") and not Path(path).exists():
            raise StvideoError(f"{key}={path}: no such file or folder")
    if config.resume not in ("auto", "never") and not Path(config.resume).is_dir():
        raise StvideoError(
            f"resume={config.resume}: no such run or checkpoint folder; resume takes auto, never or a folder"
        )


def _check_device(name: str | None) -> None:
    """Refuse a `train.ema_device` that is not here."""
    if name is None:
        return
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:120]
        raise StvideoError(f"train.ema_device={name}: no such device here ({reason}); use cpu, or null") from None


def _check_trackers(names: list[str]) -> None:
    """Refuse a tracker that Accelerate does not know or that is not installed.

    Raises:
        StvideoError: with the names that would do.
    """
    known = [tracker.value for tracker in LoggerType if tracker.value != "all"]
    installed = [str(getattr(tracker, "value", tracker)) for tracker in get_available_trackers()]
    for name in names:
        if name not in known:
            hint = nearest(name, known)
            raise StvideoError(f"train.trackers: unknown tracker {name!r}{hint}; known: {', '.join(known)}, or []")
        if name not in installed:
            raise StvideoError(
                f"train.trackers: {name!r} is not installed here; installed: {', '.join(installed)}, or []"
            )
