"""Counting multiply-accumulates: what papers print as "FLOPs (G)".

Linear, convolution and attention products of one forward pass are counted, on the ``meta`` device, where every
attention product is seen whatever kernel would run it. Normalisation, softmax and activations are not counted.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import nn

Model = TypeVar("Model", bound=nn.Module)


@dataclass
class Macs:
    """Multiply-accumulates in units of 10^9 (GMACs).

    Attributes:
        total: of the whole model.
        by_module: of every sub-module by its dotted name, its own children included.
    """

    total: float
    by_module: dict[str, float] = field(default_factory=dict)


def to_meta(model: Model) -> Model:
    """Copy ``model`` without data to the ``meta`` device; the weights are never duplicated."""
    memo: dict[int, object] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), requires_grad=False)
    for buffer in model.buffers():
        memo[id(buffer)] = buffer.detach().to("meta")
    return copy.deepcopy(model, memo)


def count_macs(model: nn.Module, shape: tuple[int, ...]) -> Macs:
    """Count one evaluation-mode forward pass of ``model``.

    Args:
        model: any module that takes a single tensor; it is not changed.
        shape: of the input, e.g. (1, 3, 8, 224, 224). The count is for the whole batch.
    """
    from torch.utils.flop_counter import FlopCounterMode  # slow to import

    meta = to_meta(model).float().eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        meta(torch.empty(shape, device="meta"))
    root = type(meta).__name__
    by_module = {
        name.removeprefix(root + "."): sum(flops.values()) / 2e9
        for name, flops in counter.get_flop_counts().items()
        if name not in ("Global", root)
    }
    return Macs(total=counter.get_total_flops() / 2e9, by_module=by_module)
