"""The model that a configuration asks for."""

from __future__ import annotations

from typing import Any

from stvideo.core.errors import StvideoError
from stvideo.models.base import Backbone
from stvideo.settings.schema import DataConfig, ModelConfig
from stvideo.weights.factory import create_model


def model_arguments(model: ModelConfig, data: DataConfig) -> dict[str, Any]:
    """Return the arguments of `create_model` that a configuration stands for.

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


def build_model(model: ModelConfig, data: DataConfig, num_classes: int) -> Backbone:
    """Build the model of a configuration; ``model.num_classes`` must agree with the data if it is given.

    Raises:
        StvideoError: as `create_model`, or the class counts differ.
    """
    if model.num_classes is not None and model.num_classes != num_classes:
        raise StvideoError(
            f"model.num_classes is {model.num_classes} but the data have {num_classes} classes; "
            "leave it null to follow them"
        )
    network = create_model(model.name, **model_arguments(model, data) | {"num_classes": num_classes})
    if model.grad_checkpointing:
        network.set_grad_checkpointing(True)
    return network
