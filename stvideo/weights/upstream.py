"""Which model an upstream file is for, and how its input was prepared: from the weights' names and shapes."""

from __future__ import annotations

import math
import re
from typing import Any

import torch
from torch import Tensor

from stvideo.core.errors import StvideoError
from stvideo.data.clips.preprocessing import Preprocessing
from stvideo.models.registry import ModelEntry, list_models, model_entry
from stvideo.weights.reading import Checkpoint

SOMETHING_SOMETHING_CLASSES = 174
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def describe_upstream(checkpoint: Checkpoint) -> dict[str, Any]:
    """Metadata for a file that has none of ours.

    A TimeSformer is read off its shapes; any other is the named model whose weights have these names and shapes.

    Raises:
        StvideoError: no named model fits.
    """
    state = checkpoint.state
    if "time_embed" in state or any(".temporal_attn." in name for name in state):
        if "head.weight" not in state:
            raise StvideoError(
                f"{checkpoint.path}: it has no classification head, so it names no classes; train one from it with "
                "init=PATH"
            )
        name, arguments = "timesformer_base_patch16_224", timesformer_arguments(state)
    else:
        name, arguments = _matching_model(checkpoint)
    preprocess = published_preprocessing(name, arguments)
    classes = [f"class {i}" for i in range(arguments["num_classes"])]
    return {"model": {"name": name, "arguments": arguments}, "preprocess": preprocess.to_dict(), "classes": classes}


def timesformer_arguments(state: dict[str, Tensor]) -> dict[str, Any]:
    """Constructor arguments of a TimeSformer whose weights have these shapes; heads are 64 wide, as published."""
    dim, patch = state["cls_token"].shape[-1], state["patch_embed.proj.weight"].shape[-1]
    blocks = [int(match[1]) for name in state if (match := re.match(r"blocks\.(\d+)\.", name))]
    return dict(
        num_classes=state["head.weight"].shape[0],
        num_frames=state["time_embed"].shape[1],
        img_size=patch * math.isqrt(state["pos_embed"].shape[1] - 1),
        patch_size=patch,
        embed_dim=dim,
        depth=1 + max(blocks),
        num_heads=max(1, dim // 64),
        attention="divided" if any(".temporal_attn." in name for name in state) else "joint",
    )


def published_preprocessing(name: str, arguments: dict[str, Any]) -> Preprocessing:
    """How the released weights of a family saw their input (TimeSformer, Video Swin, image models on ImageNet)."""
    size = arguments.get("img_size", 224)
    common = dict(sampling="stride", color_order="rgb", target_fps=30.0, img_size=size, test_short_side=None)
    if "timesformer" in name:
        something = arguments["num_classes"] == SOMETHING_SOMETHING_CLASSES
        common |= dict(mean=[0.45] * 3, std=[0.225] * 3, num_frames=arguments["num_frames"], stride=32)
        # Something-Something was read with OpenCV and its channels never put in order.
        common |= dict(color_order="bgr", sampling="segment") if something else {}
    else:
        common |= dict(mean=IMAGENET_MEAN, std=IMAGENET_STD)
        if "video_swin" in name:
            common |= dict(num_frames=32, stride=2, test_short_side=256)
        else:
            short_side = int(256 / 224 * size) if isinstance(size, int) else None
            common |= dict(num_frames=1, stride=1, test_short_side=short_side)
    return Preprocessing.from_dict(common)


def _matching_model(checkpoint: Checkpoint) -> tuple[str, dict[str, Any]]:
    head = next((checkpoint.state[key] for key in ("head.weight", "head.fc.weight") if key in checkpoint.state), None)
    if head is not None:
        hierarchical = any(name.startswith(("layers.", "features.")) for name in checkpoint.state)
        for name in list_models():
            entry = model_entry(name)
            if entry.reduction is not None or ("swin" in name) != hierarchical:
                continue  # the dense model has the same weights; ViTs have blocks, Swins layers of them
            arguments = _fitting_arguments(entry, checkpoint.state, head.shape[0])
            if arguments is not None:
                return name, arguments
    raise StvideoError(
        f"{checkpoint.path}: cannot tell which model it is for; build one with "
        "stvideo.create_model(NAME, checkpoint=PATH)"
    )


def _fitting_arguments(entry: ModelEntry, state: dict[str, Tensor], num_classes: int) -> dict[str, Any] | None:
    """Arguments with which the entry's weights have just these names and shapes, or None."""
    arguments: dict[str, Any] = dict(num_classes=num_classes)
    patch = state.get("patch_embed.proj.weight")
    if "pos_embed" in state and patch is not None:
        prefix = 1 if "cls_token" in state else 0
        side = math.isqrt(state["pos_embed"].shape[1] - prefix)
        size = side * (2 if "aux_head.weight" in state else 1) * patch.shape[-1]  # LV-ViT's patches are of features
        if size != 224:
            arguments["img_size"] = size
    try:
        with torch.device("meta"):
            model = entry.constructor(**{**entry.arguments, **arguments})
    except TypeError:
        return None
    convert = getattr(model, "convert_state", dict)
    given = {name: tuple(value.shape) for name, value in convert(state).items()}
    own = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    counters = {name for name in given if name.endswith("num_batches_tracked")}
    if {name: shape for name, shape in given.items() if name not in counters} != {
        name: shape for name, shape in own.items() if not name.endswith("num_batches_tracked")
    }:
        return None
    return arguments
