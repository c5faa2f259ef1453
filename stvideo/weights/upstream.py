"""Which model an upstream file is for, and how its input was prepared: from the weights' names and shapes."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from stvideo.core.errors import StvideoError
from stvideo.data.clips.preprocessing import Preprocessing
from stvideo.models.registry import ModelEntry, list_models, model_entry
from stvideo.weights.layouts import find_layout
from stvideo.weights.reading import Checkpoint

SOMETHING_SOMETHING_CLASSES = 174
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def describe_upstream(checkpoint: Checkpoint) -> dict[str, Any]:
    """Make the metadata of a file that has none of ours.

    The layout of its names says which named models it may be for; of several, the one with just these names and shapes.

    Raises:
        StvideoError: no named model fits.
    """
    state = checkpoint.state
    layout = find_layout(state)
    if layout is not None and "head.weight" not in state:
        raise StvideoError(
            f"{checkpoint.path}: it has no classification head, so it names no classes; train one from it with "
            "init=PATH"
        )
    names: list[str] = []
    if layout is not None:
        try:
            arguments = {"num_classes": state["head.weight"].shape[0], **layout.arguments(state)}
        except (KeyError, IndexError, ValueError) as error:
            raise StvideoError(f"{checkpoint.path}: a damaged file: its weights lack {error}") from None
        names = [n for n in list_models() if re.search(layout.MODELS, n) and model_entry(n).reduction is None]
    if len(names) > 1:
        names = [name for name in names if _fits(model_entry(name), arguments, state)]
    if not names:
        raise StvideoError(
            f"{checkpoint.path}: cannot tell which model it is for; build one with "
            "stvideo.create_model(NAME, checkpoint=PATH)"
        )
    return {
        "model": {"name": names[0], "arguments": arguments},
        "preprocess": published_preprocessing(names[0], **arguments).to_dict(),
        "classes": [f"class {i}" for i in range(arguments["num_classes"])],
    }


def published_preprocessing(
    name: str, num_classes: int, num_frames: int = 1, img_size: int | tuple[int, int] = 224, **others: Any
) -> Preprocessing:
    """Return the published preprocessing of a family: TimeSformer, Video Swin, image models on ImageNet.

    Args:
        name: of the model.
        num_classes, num_frames, img_size: its arguments.
        others: further arguments, which change nothing.
    """
    found: dict[str, Any] = dict(mean=IMAGENET_MEAN, std=IMAGENET_STD, img_size=img_size)
    if "timesformer" in name:
        found |= dict(mean=[0.45] * 3, std=[0.225] * 3, num_frames=num_frames, stride=32)
        if num_classes == SOMETHING_SOMETHING_CLASSES:  # read with OpenCV, its channels never put in order
            found |= dict(color_order="bgr", sampling="segment")
    elif "video_swin" in name:
        found |= dict(num_frames=32, stride=2, test_short_side=256)
    else:
        side = img_size if isinstance(img_size, int) else min(img_size)
        found |= dict(num_frames=1, stride=1, test_short_side=int(256 / 224 * side))
    return Preprocessing.from_dict(found)


def _fits(entry: ModelEntry, arguments: dict[str, Any], state: dict[str, Tensor]) -> bool:
    """Tell whether the entry's weights have just these names and shapes; counters of batches are left aside."""
    try:
        with torch.device("meta"):
            model = entry.constructor(**{**entry.arguments, **arguments})
    except TypeError:
        return False
    given, own = (
        {name: tuple(value.shape) for name, value in weights.items() if not name.endswith("num_batches_tracked")}
        for weights in (state, model.state_dict())
    )
    return given == own
