"""The machine's own matrix-product rate on a model's shapes: the limit that a model's speed is held against.

The linear layers of a model are nearly all of its arithmetic. Their products alone, on random matrices of the same
shapes, with nothing between them, are as fast as this machine does that arithmetic with torch's kernels. Where torch
has two, one for weights as they are stored and one for weights rearranged in advance, the faster one counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from stvideo.core.packed import can_pack, is_product, multiply, rearrange

Shape = tuple[int, int, int]
"""(rows, in features, out features) of one linear layer's product."""


class _LinearShapes(TorchFunctionMode):
    """Writes down the shape of every linear layer's product."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[Shape] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.linear or is_product(func):
            x, weight = args[0], args[1] if len(args) > 1 else (kwargs or {})["weight"]
            self.counts[(x.numel() // x.shape[-1], weight.shape[1], weight.shape[0])] += 1
        return func(*args, **(kwargs or {}))


def linear_shapes(run: Callable[[], Any]) -> Counter[Shape]:
    """How often each product occurs in ``run``, which is called once: as the device really does them, a large batch in
    several passes where the model chooses so."""
    with _LinearShapes() as shapes:
        run()
    return shapes.counts


def product_calls(
    shapes: Sequence[Shape], device: torch.device, precision: str = "fp32", training: bool = False
) -> list[list[Callable[[], Any]]]:
    """For each shape the functions that multiply random matrices of it, one for each kernel that torch has for that.

    The inputs of all of them are cut from one piece of memory: at a large batch each is hundreds of megabytes.

    Args:
        training: also the two products of the backward pass, for the input's and the weight's gradient.
    """
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    largest = max((rows * inner for rows, inner, _ in shapes), default=0)
    numbers = torch.randn(largest, device=device).to(dtype)
    return [_product_calls_of(numbers, shape, training) for shape in shapes]


def _product_calls_of(numbers: Tensor, shape: Shape, training: bool) -> list[Callable[[], Any]]:
    rows, inner, outer = shape
    device, dtype = numbers.device, numbers.dtype
    x = numbers[: rows * inner].view(rows, inner)
    weight = torch.randn(outer, inner, device=device, dtype=dtype)
    bias = torch.zeros(outer, device=device, dtype=dtype)

    def forward() -> Tensor:
        with torch.inference_mode():
            return F.linear(x, weight, bias)

    def forward_and_backward() -> tuple[Tensor, Tensor]:
        with torch.inference_mode():
            y = F.linear(x, weight, bias)
            return y @ weight, y.t() @ x

    if training:
        return [forward_and_backward]
    if device.type != "cpu" or not can_pack(dtype):
        return [forward]
    rearranged = rearrange(weight)

    def forward_rearranged() -> Tensor:
        with torch.inference_mode():
            return multiply(x, rearranged, bias)

    return [forward, forward_rearranged]
