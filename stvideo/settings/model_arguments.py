"""From the configuration to the arguments of a model."""

from __future__ import annotations

from typing import Any

from stvideo.core.errors import StvideoError
from stvideo.settings.config import DataConfig, ModelConfig


def model_arguments(model: ModelConfig, data: DataConfig) -> dict[str, Any]:
    """Collect the arguments of `create_model` that a configuration asks for.

    Raises:
        StvideoError: ``model.args`` holds what has a setting of its own.
    """
    arguments: dict[str, Any] = dict(
        num_classes=model.num_classes,
        num_frames=data.num_frames,
        img_size=data.img_size,
        attention=model.attention,
        reduction=model.reduction,
        drop_path_rate=model.drop_path_rate,
        drop_rate=model.drop_rate,
        weight_init=model.weight_init,
    )
    for key in model.args:
        if key in arguments:
            section = "data" if key in ("num_frames", "img_size") else "model"
            raise StvideoError(f"model.args.{key}: this setting has a place of its own, {section}.{key}")
    return arguments | model.args
