"""Weights of a dense Swin as a start for layers on semantic tokens. Pure functions on state dicts in our names."""

from __future__ import annotations

import torch
from torch import Tensor


def split_projection(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """Turn window attention ``name`` into attention on semantic tokens: ``qkv`` into ``q`` and ``kv``, no bias table.

    Left alone if it is no window attention.
    """
    state = dict(state)
    state.pop(f"{name}.relative_position_bias_table", None)
    for part in ("weight", "bias"):
        qkv = state.pop(f"{name}.qkv.{part}", None)
        if qkv is not None:
            dim = qkv.shape[0] // 3
            state[f"{name}.q.{part}"], state[f"{name}.kv.{part}"] = qkv[:dim], qkv[dim:]
    return state


def merging_to_projection(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """Turn patch merging ``name`` into a projection of single tokens: what it makes of four equal neighbours.

    The projection of the merging's norm bias has no exact place; its least-squares part goes into the new bias. Left
    alone if it is a projection already.
    """
    reduction = state.get(f"{name}.reduction.weight")
    if reduction is None or reduction.shape[1] != 2 * reduction.shape[0]:
        return state
    gain, bias = (state[f"{name}.norm.{part}"].float() for part in ("weight", "bias"))
    weight = (reduction.float() * gain).unflatten(1, (4, -1)).sum(dim=1)
    shift = torch.linalg.lstsq(weight, (reduction.float() @ bias).unsqueeze(1)).solution.squeeze(1)
    new = {"reduction.weight": weight, "norm.weight": torch.ones_like(shift), "norm.bias": shift}
    return state | {f"{name}.{part}": value.to(reduction.dtype) for part, value in new.items()}
