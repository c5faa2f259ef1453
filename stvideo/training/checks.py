"""What only training has to check before anything slow happens: data, devices, trackers, files to start from."""

from __future__ import annotations

from pathlib import Path

import torch

from stvideo.core.errors import StvideoError
from stvideo.data.clips.protocols import find_protocol
from stvideo.settings.checks import check_config
from stvideo.settings.config import Config
from stvideo.training.log import check_trackers


def check_training(config: Config) -> None:
    """`check_config`, and what only training needs: data, and files to start from."""
    check_config(config)
    for key in ("views", "during_training"):
        find_protocol(getattr(config.evaluate, key), f"evaluate.{key}")
    # Of this machine: a run may well be evaluated on one that has neither.
    _check_device(config.train.ema_device)
    check_trackers(config.train.trackers)
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
