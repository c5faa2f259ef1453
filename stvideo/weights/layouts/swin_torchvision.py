"""torchvision's ``swin_*`` and ``swin3d_*``: stages and patch merging counted in one list, ``features``."""

from __future__ import annotations

import re

from torch import Tensor

from stvideo.weights.layouts import swin_official
from stvideo.weights.layouts.swin_official import MODELS, arguments

__all__ = ["MODELS", "arguments", "convert", "matches"]


def matches(state: dict[str, Tensor]) -> bool:
    """Pick any weight of the list."""
    return any(re.match(r"features\.\d+\.", name) for name in state)


def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename all weights; the list of an image model begins with its embedding."""
    image = "features.0.0.weight" in state
    return {_rename(name, image): value for name, value in swin_official.convert(state).items()}


def _rename(name: str, image: bool) -> str:
    match = re.match(r"features\.(\d+)\.(.+)$", name)
    if match is None:
        return name
    place, rest = int(match[1]) - image, match[2]
    if place < 0:
        return re.sub(r"^2\.", "patch_embed.norm.", re.sub(r"^0\.", "patch_embed.proj.", rest))
    if place % 2:
        return f"layers.{place // 2}.downsample.{rest}"
    rest = rest.replace(".mlp.0.", ".mlp.fc1.").replace(".mlp.3.", ".mlp.fc2.")
    return f"layers.{place // 2}.blocks.{rest}"
