"""Parameter names of upstream Swin files, turned into ours. Pure functions on state dicts."""

from __future__ import annotations

import re

import torch
from torch import Tensor

# Tables that a model computes for itself, and counters it does not keep.
COMPUTED = re.compile(r"(relative_position_index|relative_coords_table|attn_mask|num_batches_tracked)$")


def convert_swin_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Official, timm or torchvision (``swin3d_*``) names to ours, which are the official ones.

    - timm puts patch merging in front of the stage that it leads to, officially it ends the stage before;
      its classifier is ``head.fc``.
    - torchvision counts stages and mergings in one list, ``features``.
    - Computed tables and counters are left out.

    State dicts that have our names already come back without those tables, otherwise as they are.
    """
    state = {name: value for name, value in state.items() if not COMPUTED.search(name)}
    if any(name.startswith("features.") for name in state):
        return {_from_torchvision(name, "features.0.0.weight" in state): value for name, value in state.items()}
    stages = [int(match[1]) for name in state if (match := re.match(r"layers\.(\d+)\.", name))]
    merges = {int(match[1]) for name in state if (match := re.match(r"layers\.(\d+)\.downsample\.", name))}
    merge_leads = bool(merges) and 0 not in merges and max(merges) == max(stages)
    converted = {}
    for name, value in state.items():
        match = re.match(r"layers\.(\d+)\.downsample\.(.+)$", name)
        if match and merge_leads:
            name = f"layers.{int(match[1]) - 1}.downsample.{match[2]}"
        converted[name.replace("head.fc.", "head.", 1) if name.startswith("head.fc.") else name] = value
    return converted


def _from_torchvision(name: str, image: bool) -> str:
    """One name of torchvision's Swin: ``features`` alternates stages and mergings, after an image's embedding."""
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


def split_projection(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """Turn window attention into attention on semantic tokens: ``qkv`` into ``q`` and ``kv``, no position bias.

    Args:
        state: weights in our names.
        name: of the attention, e.g. ``layers.2.blocks.4.attn``; left alone if it is no window attention.
    """
    if f"{name}.qkv.weight" not in state:
        return state
    state = dict(state)
    state.pop(f"{name}.relative_position_bias_table", None)
    for part in ("weight", "bias"):
        qkv = state.pop(f"{name}.qkv.{part}", None)
        if qkv is not None:
            dim = qkv.shape[0] // 3
            state[f"{name}.q.{part}"], state[f"{name}.kv.{part}"] = qkv[:dim], qkv[dim:]
    return state


def merging_to_projection(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """Turn patch merging into a projection of single tokens: what it makes of four equal neighbours.

    The projection of the merging's norm bias has no exact place; its least-squares part goes into the new bias.

    Args:
        state: weights in our names.
        name: of the merging, e.g. ``layers.2.downsample``; left alone if it is a projection already.
    """
    reduction = state.get(f"{name}.reduction.weight")
    if reduction is None or reduction.shape[1] != 2 * reduction.shape[0]:
        return state
    gain, bias = (state[f"{name}.norm.{part}"].float() for part in ("weight", "bias"))
    weight = (reduction.float() * gain).unflatten(1, (4, -1)).sum(dim=1)
    shift = torch.linalg.lstsq(weight, (reduction.float() @ bias).unsqueeze(1)).solution.squeeze(1)
    new = {"reduction.weight": weight, "norm.weight": torch.ones_like(shift), "norm.bias": shift}
    return state | {f"{name}.{part}": value.to(reduction.dtype) for part, value in new.items()}
