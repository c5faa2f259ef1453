"""The machine's own matrix-product rate on a model's shapes: the limit that a model's speed is held against.

The linear layers of a model are nearly all of its arithmetic. Their products alone, on random matrices of the same
shapes, with nothing between them, are as fast as this machine does that arithmetic with torch's kernels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from stvideo.macs import to_meta

Shape = tuple[int, int, int]
"""(rows, in features, out features) of one linear layer's product."""


class _LinearShapes(TorchFunctionMode):
    """Writes down the shape of every `torch.nn.functional.linear`."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[Shape] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.linear:
            x, weight = args[0], args[1] if len(args) > 1 else (kwargs or {})["weight"]
            self.counts[(x.numel() // x.shape[-1], weight.shape[1], weight.shape[0])] += 1
        return func(*args, **(kwargs or {}))


def linear_shapes(model: nn.Module, shape: tuple[int, ...]) -> Counter[Shape]:
    """How often each product occurs in one forward pass; nothing is computed.

    Args:
        model: any module that takes one tensor.
        shape: of the whole batch.
    """
    meta = to_meta(model).float().eval()
    with torch.no_grad(), _LinearShapes() as shapes:
        meta(torch.empty(shape, device="meta"))
    return shapes.counts


def product_call(
    shape: Shape, device: torch.device, precision: str = "fp32", training: bool = False
) -> Callable[[], Any]:
    """A function that multiplies random matrices of ``shape``.

    Args:
        training: also the two products of the backward pass, for the input's and the weight's gradient.
    """
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    rows, inner, outer = shape
    x = torch.randn(rows, inner, device=device, dtype=dtype)
    weight = torch.randn(outer, inner, device=device, dtype=dtype)
    bias = torch.zeros(outer, device=device, dtype=dtype)

    def forward() -> Tensor:
        with torch.inference_mode():
            return F.linear(x, weight, bias)

    def forward_and_backward() -> tuple[Tensor, Tensor]:
        with torch.inference_mode():
            y = F.linear(x, weight, bias)
            return y @ weight, y.t() @ x

    return forward_and_backward if training else forward
