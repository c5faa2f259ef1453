"""Image ViTs: files of timm's ViT, DeiT, EViT and LV-ViT, which all have our own names."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from stvideo.weights.layouts import timesformer

MODELS = "deit|lvvit|^vit"


def matches(state: dict[str, Tensor]) -> bool:
    """Patches with positions, and blocks in one list; nothing over time."""
    return "pos_embed" in state and "blocks.0.norm1.weight" in state and not timesformer.matches(state)


def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the state as it is."""
    return state


def arguments(state: dict[str, Tensor]) -> dict[str, Any]:
    """Tell the image size where it is not the published one."""
    prefix = 1 if "cls_token" in state else 0
    side = math.isqrt(state["pos_embed"].shape[1] - prefix)
    of_features = 2 if "aux_head.weight" in state else 1  # LV-ViT's patches are of features at half resolution
    size = side * of_features * state["patch_embed.proj.weight"].shape[-1]
    return {} if size == 224 else {"img_size": size}
