"""The machine's own matrix-product rate on a model's shapes: the limit that a model's speed is compared with.

The linear layers of a model are nearly all of its arithmetic. Their products alone, on random matrices of the same
shapes, with nothing between them, are as fast as this machine does that arithmetic with torch's kernels. Where torch
has two, one for weights as they are stored and one for weights rearranged in advance, the faster one counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from stvideo.core.packed import can_pack, is_product, multiply, rearrange

Shape = tuple[int, int, int]
"""(rows, in features, out features) of one linear layer's product."""


class _LinearShapes(TorchFunctionMode):
    """Counts the shape of every linear layer's product."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[Shape] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.linear or is_product(func):
            x, weight = args[0], args[1] if len(args) > 1 else (kwargs or {})["weight"]
            self.counts[(x.numel() // x.shape[-1], weight.shape[1], weight.shape[0])] += 1
        return func(*args, **(kwargs or {}))


def linear_shapes(run: Callable[[], Any]) -> Counter[Shape]:
    """Count each product in ``run``, which is called once: as the device really does them, a large batch in several
    passes where the model chooses so."""
    with _LinearShapes() as shapes:
        run()
    return shapes.counts


def product_calls(
    shapes: Collection[Shape], device: torch.device, bf16: bool = False, training: bool = False
) -> dict[tuple[Shape, str], Callable[[], Any]]:
    """Make functions that multiply random matrices of the shapes, one for each kernel that torch has for them.

    The inputs of all of them are cut from one piece of memory: at a large batch each is hundreds of megabytes.

    Args:
        shapes: of the products.
        device: where they run.
        bf16: multiply bfloat16 instead of float32.
        training: also the two products of the backward pass, for the input's and the weight's gradient.

    Returns:
        By (shape, name of the kernel).
    """
    dtype = torch.bfloat16 if bf16 else torch.float32
    numbers = torch.randn(max((rows * inner for rows, inner, _ in shapes), default=0), device=device).to(dtype)
    calls: dict[tuple[Shape, str], Callable[[], Any]] = {}
    for shape in shapes:
        rows, inner, outer = shape
        x = numbers[: rows * inner].view(rows, inner)
        weight = torch.randn(outer, inner, device=device, dtype=dtype)
        bias = torch.zeros(outer, device=device, dtype=dtype)
        calls[shape, "stored"] = _without_gradients(_multiply_and_back if training else F.linear, x, weight, bias)
        if device.type == "cpu" and can_pack(dtype) and not training:
            calls[shape, "rearranged"] = _without_gradients(multiply, x, rearrange(weight), bias)
    return calls


def _without_gradients(function: Callable[..., Any], *tensors: Tensor) -> Callable[[], Any]:
    def call() -> Any:
        with torch.inference_mode():
            return function(*tensors)

    return call


def _multiply_and_back(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    y = F.linear(x, weight, bias)
    return y @ weight, y.t() @ x
