"""One model at many budgets: twins that share its weights, and the random control at the cost of each."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from itertools import chain, combinations
from typing import Any

import torch
from torch import nn

from stvideo.core.errors import StvideoError, nearest
from stvideo.core.macs import count_macs
from stvideo.reduction.base import apply_reduction, reduction_options, remove_reduction
from stvideo.reduction.budget import set_budget

CONTROL = "random"
METHOD_OF = {"keep_rate": "evit", "tokens": "evit", "grid": "stgm", "num_semantic_tokens": "stgm"}
"""What a dense model gets when it is swept over an option of a reduction."""


@dataclass(frozen=True)
class Budget:
    """One value of a sweep, such as keep_rate 0.7."""

    option: str
    value: Any
    text: str

    @property
    def name(self) -> str:
        """For file names: ``keep_rate-0.7``."""
        return f"{self.option}-{self.text}"


def parse_sweep(text: str) -> list[Budget]:
    """``"keep_rate:1.0,0.7"`` or ``"grid:8x4x4,8x2x2"`` as budgets, in their order. ``T`` in a grid is the clip's own.

    Raises:
        StvideoError: not of this form, an option that is no budget, or a value that comes twice.
    """
    option, colon, values = text.replace(" ", "").partition(":")
    texts = [part for part in values.split(",") if part]
    if not colon or not texts:
        raise StvideoError(f"sweep={text}: expected OPTION:VALUE,VALUE,..., e.g. keep_rate:1.0,0.7,0.5 or grid:8x4x4")
    if option not in METHOD_OF:
        hint = nearest(option, METHOD_OF)
        raise StvideoError(f"sweep={text}: there is no budget {option!r}{hint}; choose {', '.join(METHOD_OF)}")
    budgets = [Budget(option, _value(option, part, text), part) for part in texts]
    if any(budget.value == other.value for budget, other in combinations(budgets, 2)):  # 0.5 and 0.50 are one
        raise StvideoError(f"sweep={text}: a value comes twice")
    return budgets


def _value(option: str, part: str, text: str) -> Any:
    if option == "grid":
        match = re.fullmatch(r"(\d+|T)x(\d+)x(\d+)", part)
        if match is None:
            raise StvideoError(f"sweep={text}: a grid is TIMExROWSxCOLUMNS, e.g. 8x4x4 or Tx4x4, not {part!r}")
        return [None if match[1] == "T" else int(match[1]), int(match[2]), int(match[3])]
    if re.fullmatch(r"\d+", part, re.ASCII):
        return int(part)
    if not re.fullmatch(r"-?(\d+\.?\d*|\.\d+)(e-?\d+)?", part, re.ASCII):
        raise StvideoError(f"sweep={text}: {part!r} is not a number")
    return float(part)


def share_weights(model: nn.Module) -> nn.Module:
    """A twin of ``model`` whose reductions can be changed, with the very same weights: it takes no memory for them."""
    tensors = chain(model.parameters(), model.buffers())
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


def at_budget(model: nn.Module, budget: Budget) -> nn.Module:
    """A twin of ``model`` at another budget: of its reductions that have the option, or of a new one if it is dense.

    Raises:
        StvideoError: a model that takes no reductions, one whose reductions lack the option, or a value that it does
            not take.
    """
    twin = share_weights(model)
    present: Any = getattr(twin, "reductions", {})
    change = {budget.option: budget.value}
    methods = [name for name, reduction in present.items() if budget.option in reduction.budget_options]
    if methods:
        return set_budget(twin, dict.fromkeys(methods, change))
    if len(present):
        raise StvideoError(f"sweep over {budget.option}: {', '.join(present)} of this model has no such option")
    torch.manual_seed(0)  # an STGM brings weights of its own; the same ones at every budget
    return apply_reduction(twin, METHOD_OF[budget.option], **change)


def control_of(model: nn.Module) -> nn.Module | None:
    """A twin of ``model`` that keeps random tokens instead, at the cost of its reductions and in the same layers.

    Returns:
        None for a model that costs no less than its dense form: there is nothing to drop.

    Raises:
        StvideoError: the model takes no such reduction, or no keep rate reaches that cost.
    """
    reductions: Any = getattr(model, "reductions", {})
    if not len(reductions):
        return None
    twin = remove_reduction(share_weights(model))
    shape = model.example_shape()  # type: ignore[operator]
    if count_macs(model, shape).total >= count_macs(twin, shape).total:
        return None
    target, layers = reduction_options(model), next(iter(reductions.values())).layers
    try:
        return apply_reduction(twin, CONTROL, equal_to=target, layers=layers)
    except StvideoError:  # the same layers may lie too late to become as cheap
        return apply_reduction(twin, CONTROL, equal_to=target)
