"""Refuse values of a configuration that no command could use."""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

from stvideo.core.errors import StvideoError, nearest
from stvideo.settings.config import Config

CHOICES = {
    "train.optimizer": ("adamw", "sgd"),
    "train.schedule": ("cosine", "step", "constant"),
    "train.precision": ("fp32", "bf16", "fp16"),
    "data.leakage": ("warn", "stop"),
    "evaluate.average": ("softmax", "logits"),
    "evaluate.unreadable": ("stop", "list"),
    "predict.features": ("clip", "frame", "token", "map"),
    "predict.feature_format": ("npz", "safetensors"),
    "visualize.outputs": ("png", "mp4", "html"),
}
POSITIVE = (
    "train.epochs", "train.lr", "train.accumulation_steps", "train.eval_every_epochs", "train.log_every_steps",
    "train.keep_checkpoints", "train.distill_temperature", "train.max_steps", "train.lr_batch_size",
    "train.checkpoint_every_steps", "train.clip_grad_norm", "train.layer_decay", "train.calibration_clips",
    "data.batch_size", "data.clips_per_video", "evaluate.batch_size", "predict.window_seconds", "predict.hop_seconds",
    "visualize.columns", "visualize.video_side", "visualize.max_clips", "top_k",
)  # fmt: skip
LARGEST_SEED = 2**62  # torch takes 64 bits, and every process adds its number
NOT_NEGATIVE = (
    "train.weight_decay", "train.min_lr", "train.warmup_epochs", "train.momentum", "train.distill_weight",
    "train.head_lr_scale", "train.seed", "data.workers", "data.mixup", "data.cutmix", "data.color_jitter",
)  # fmt: skip
SHARES = (
    "train.label_smoothing", "train.ema_decay", "train.layer_decay", "model.drop_rate", "model.drop_path_rate",
    "data.max_unreadable", "data.random_erasing",
)  # fmt: skip


def check_config(config: Config) -> None:
    """Refuse values that no command could use; those of a clip are refused by `Preprocessing`.

    Raises:
        StvideoError: the key, its value and what it may be.
    """
    for key, choices in CHOICES.items():
        value = _get(config, key)
        for chosen in (value or [""]) if isinstance(value, list) else [value]:
            if chosen is not None and chosen not in choices:
                hint = nearest(str(chosen), choices)
                raise StvideoError(f"{key}={value}: unknown {chosen!r}{hint}; choose from {', '.join(choices)}")
    for keys, is_right, rule in (
        (POSITIVE, lambda value: 0 < value < math.inf, "must be above 0, and finite"),  # nan is refused too
        (NOT_NEGATIVE, lambda value: 0 <= value < math.inf, "must not be negative, and finite"),
        (SHARES, lambda value: 0 <= value <= 1, "must be between 0 and 1"),
        (("train.seed",), lambda value: value <= LARGEST_SEED, f"must be at most {LARGEST_SEED}"),
        (("train.betas",), lambda value: len(value) == 2, "AdamW takes two numbers, e.g. [0.9,0.999]"),
    ):
        for key in keys:
            value = _get(config, key)
            if value is not None and not is_right(value):
                raise StvideoError(f"{key}={value}: {rule}")


def _get(config: Config, key: str) -> Any:
    return reduce(getattr, key.split("."), config)
