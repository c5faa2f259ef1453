"""Linear layers whose weights lie ready for the CPU's matrix product.

torch multiplies by a weight as it is stored and rearranges it in every call. oneDNN, which torch carries, keeps it
rearranged and applies GELU to the product while that is in the cache; fewer rows gain more. The operators are those
that torch's own compiler calls. They have no public names, so they are tried once, and `torch.nn.functional.linear`
does the work wherever they are missing or give something else.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALLEST = 2**17
"""Numbers in a weight below which the call costs more than it saves."""


class PackedLinear(nn.Linear):
    """A linear layer for inference with a second, rearranged copy of its weight, made at its first use on a CPU.

    The weight itself stays, under its own name, for export, compiling, counting and other devices; wherever a gradient
    is wanted it is used as well. Changing it by ``load_state_dict`` or ``to`` discards the copy; other changes in place
    are not noticed.
    """

    _copies: dict[tuple[int, int], tuple[Tensor, Tensor | None]]

    @classmethod
    def from_linear(cls, linear: nn.Linear) -> PackedLinear:
        """Create the layer from an ordinary one, sharing its parameters."""
        packed = cls.__new__(cls)
        packed.__dict__.update(linear.__dict__)
        packed._copies = {}
        return packed

    def forward(self, x: Tensor) -> Tensor:
        """Multiply by the weight. (..., in) -> (..., out)."""
        return self.rows(x, 0, self.out_features)

    def rows(self, x: Tensor, start: int, stop: int, activation: str = "none") -> Tensor:
        """Compute the output channels from ``start`` to ``stop``, through ``activation``: none or gelu."""
        if self._fits(x):
            return multiply(x, *self._copy(start, stop), activation)
        out = F.linear(x, self.weight[start:stop], None if self.bias is None else self.bias[start:stop])
        return F.gelu(out) if activation == "gelu" else out

    def _fits(self, x: Tensor) -> bool:
        """Tell whether the rearranged weight can be used for ``x``."""
        if torch.compiler.is_compiling() or x.device.type != "cpu" or x.numel() == 0:
            return False
        if torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad):
            return False
        return x.dtype == self.weight.dtype and not torch.is_autocast_enabled("cpu") and can_pack(x.dtype)

    def _copy(self, start: int, stop: int) -> tuple[Tensor, Tensor | None]:
        if (start, stop) not in self._copies:
            bias = None if self.bias is None else self.bias[start:stop]
            self._copies[start, stop] = rearrange(self.weight[start:stop]), bias
        return self._copies[start, stop]

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        self._copies = {}
        return super()._apply(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._copies = {}
        super()._load_from_state_dict(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_copies": {}}


def pack_linears(model: nn.Module) -> None:
    """Replace every linear layer inside ``model`` that is large enough by a `PackedLinear`."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Linear and child.weight.numel() >= SMALLEST:
                setattr(module, name, PackedLinear.from_linear(child))


def linear_rows(linear: nn.Linear, x: Tensor, start: int, stop: int) -> Tensor:
    """Compute the output channels of ``linear`` from ``start`` to ``stop``. (..., in) -> (..., stop - start)."""
    if isinstance(linear, PackedLinear):
        return linear.rows(x, start, stop)
    return F.linear(x, linear.weight[start:stop], None if linear.bias is None else linear.bias[start:stop])


@lru_cache
def can_pack(dtype: torch.dtype) -> bool:
    """Tell whether this build of torch multiplies ``dtype`` by rearranged weights here, and rightly."""
    if dtype not in (torch.float32, torch.bfloat16) or not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(shape, generator=generator).to(dtype) for shape in ((2, 3, 32), (48, 32), (48,)))
    tolerance = 1e-4 if dtype == torch.float32 else 0.1
    try:
        with torch.inference_mode(False), torch.no_grad():
            expected = F.linear(x, weight, bias)
            return all(
                torch.allclose(multiply(x, rearrange(weight), bias, name), wanted, atol=tolerance, rtol=tolerance)
                for name, wanted in (("none", expected), ("gelu", F.gelu(expected)))
            )
    except (AttributeError, RuntimeError):
        return False


def rearrange(weight: Tensor) -> Tensor:
    """Rearrange ``weight`` (out, in) to oneDNN's own order; the result is opaque but for its shape."""
    with torch.inference_mode(False), torch.no_grad():
        packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.clone())
        return packed


def multiply(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "none") -> Tensor:
    """Multiply (..., in) by a rearranged weight (out, in), through ``activation``: none or gelu -> (..., out)."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, activation, [], "none")
    return product


def is_product(function: Any) -> bool:
    """Tell whether ``function`` is the operator that `multiply` calls, for counters of torch's calls."""
    return str(function) == "mkldnn._linear_pointwise.default"
