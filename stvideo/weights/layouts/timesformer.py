"""Official TimeSformer files: our own names."""

from __future__ import annotations

import math
import re
from typing import Any

from torch import Tensor

MODELS = "^timesformer_base_patch16_224$"  # any other size is told by its arguments


def matches(state: dict[str, Tensor]) -> bool:
    """Positions or attention over time."""
    return "time_embed" in state or any(".temporal_attn." in name for name in state)


def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the state as it is."""
    return state


def arguments(state: dict[str, Tensor]) -> dict[str, Any]:
    """Tell every size; heads are 64 wide, as published."""
    dim, patch = state["cls_token"].shape[-1], state["patch_embed.proj.weight"].shape[-1]
    blocks = [int(match[1]) for name in state if (match := re.match(r"blocks\.(\d+)\.", name))]
    return dict(
        num_frames=state["time_embed"].shape[1],
        img_size=patch * math.isqrt(state["pos_embed"].shape[1] - 1),
        patch_size=patch,
        embed_dim=dim,
        depth=1 + max(blocks),
        num_heads=max(1, dim // 64),
        attention="divided" if any(".temporal_attn." in name for name in state) else "joint",
    )
