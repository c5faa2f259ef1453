"""Official Swin and STViT-R files: our own names, and tables that the model computes for itself."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

MODELS = "swin"
COMPUTED = re.compile(r"(relative_position_index|relative_coords_table|attn_mask|num_batches_tracked)$")


def matches(state: dict[str, Tensor]) -> bool:
    """Stages are ``layers``, each ends with its merging, and the classifier is ``head``."""
    return bool(stages(state)) and not merging_leads(state) and "head.fc.weight" not in state


def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Leave the computed tables out."""
    return {name: value for name, value in state.items() if not COMPUTED.search(name)}


def arguments(state: dict[str, Tensor]) -> dict[str, Any]:
    """Tell nothing: named models have the published sizes."""
    return {}


def stages(state: dict[str, Tensor], part: str = "") -> set[int]:
    """List the stages that have weights whose names go on with ``part``."""
    return {int(match[1]) for name in state if (match := re.match(rf"layers\.(\d+)\.{part}", name))}


def merging_leads(state: dict[str, Tensor]) -> bool:
    """Tell whether patch merging comes first in the stage that it leads to, as in timm."""
    merges = stages(state, "downsample")
    return bool(merges) and 0 not in merges and max(merges) == max(stages(state))
