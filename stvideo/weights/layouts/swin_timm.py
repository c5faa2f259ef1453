"""timm's Swin: patch merging in front of the stage that it leads to, and a classifier called ``head.fc``."""

from __future__ import annotations

import re

from torch import Tensor

from stvideo.weights.layouts import swin_official
from stvideo.weights.layouts.swin_official import MODELS, arguments, merging_leads, stages

__all__ = ["MODELS", "arguments", "convert", "matches"]


def matches(state: dict[str, Tensor]) -> bool:
    """As for the official layout, but for merging or classifier."""
    return bool(stages(state)) and (merging_leads(state) or "head.fc.weight" in state)


def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Move merging to the end of the stage before, and rename the classifier."""
    back = 1 if merging_leads(state) else 0
    converted = {}
    for name, value in swin_official.convert(state).items():
        name = re.sub(r"^layers\.(\d+)\.downsample\.", lambda m: f"layers.{int(m[1]) - back}.downsample.", name)
        converted[re.sub(r"^head\.fc\.", "head.", name)] = value
    return converted
