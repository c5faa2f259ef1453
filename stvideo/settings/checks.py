"""Refuse values of a configuration that no command could use."""

from __future__ import annotations

import math
from functools import reduce

from stvideo.core.errors import StvideoError, nearest
from stvideo.settings.config import Config

CHOICES = {
    "train.optimizer": ("adamw", "sgd"),
    "train.schedule": ("cosine", "step", "constant"),
    "train.precision": ("fp32", "bf16", "fp16"),
    "data.sampling": ("stride", "segment"),
    "data.color_order": ("rgb", "bgr"),
    "data.decoder": ("auto", "decord", "pyav", "torchcodec"),
    "data.leakage": ("warn", "stop"),
    "evaluate.average": ("softmax", "logits"),
    "evaluate.unreadable": ("stop", "list"),
    "predict.features": ("clip", "frame", "token", "map"),
    "predict.feature_format": ("npz", "safetensors"),
    "visualize.outputs": ("png", "mp4", "html"),
}
POSITIVE = (
    "train.epochs", "train.lr", "train.accumulation_steps", "train.eval_every_epochs", "train.log_every_steps",
    "train.keep_checkpoints", "train.distill_temperature", "data.batch_size", "data.num_frames", "data.stride",
    "data.target_fps", "data.img_size", "data.clips_per_video", "train.max_steps", "train.lr_batch_size",
    "train.checkpoint_every_steps", "train.clip_grad_norm", "train.layer_decay", "train.calibration_clips",
    "evaluate.batch_size", "predict.window_seconds", "predict.hop_seconds", "visualize.columns",
    "visualize.video_side", "visualize.max_clips", "top_k",
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
    """Refuse values that no run could use.

    Raises:
        StvideoError: the key, its value and what it may be.
    """
    for key, choices in CHOICES.items():
        value = _get(config, key)
        for chosen in (value or [""]) if isinstance(value, list) else [value]:
            if chosen is not None and chosen not in choices:
                hint = nearest(str(chosen), choices)
                raise StvideoError(f"{key}={value}: unknown {chosen!r}{hint}; choose from {', '.join(choices)}")
    for keys, is_wrong, rule in (
        (POSITIVE, lambda value: not 0 < value < math.inf, "must be above 0, and finite"),  # nan is refused too
        (NOT_NEGATIVE, lambda value: not 0 <= value < math.inf, "must not be negative, and finite"),
        (SHARES, lambda value: not 0 <= value <= 1, "must be between 0 and 1"),
    ):
        for key in keys:
            value = _get(config, key)
            if value is not None and is_wrong(value):  # type: ignore[no-untyped-call]
                raise StvideoError(f"{key}={value}: {rule}")
    if config.train.seed > LARGEST_SEED:
        raise StvideoError(f"train.seed={config.train.seed}: must be at most {LARGEST_SEED}")
    if len(config.train.betas) != 2:
        raise StvideoError(f"train.betas={config.train.betas}: AdamW takes two numbers, e.g. [0.9,0.999]")
    for key in ("mean", "std"):
        if len(getattr(config.data, key)) != 3:
            raise StvideoError(f"data.{key}={getattr(config.data, key)}: one number per colour channel, three in all")
    if not all(map(math.isfinite, config.data.mean)):
        raise StvideoError(f"data.mean={config.data.mean}: must be finite numbers")
    if not all(0 < value < math.inf for value in config.data.std):
        raise StvideoError(f"data.std={config.data.std}: must be numbers above 0")


def _get(config: Config, key: str) -> object:
    return reduce(getattr, key.split("."), config)
