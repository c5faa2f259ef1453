"""Sweeps over a budget: their text form, and one model at each of their values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch

from stvideo.core.errors import StvideoError, nearest
from stvideo.core.macs import Model
from stvideo.reduction.apply import apply_reduction, reductions_of
from stvideo.reduction.base import list_reductions, reduction_class
from stvideo.reduction.budget import set_budget
from stvideo.reduction.equal_cost import twin_of


@dataclass(frozen=True)
class SweepPoint:
    """One value of a sweep, such as keep_rate 0.7.

    Attributes:
        method: the reduction it is an option of; None: whichever of the model's has it.
        option: name of the budget.
        value: as the method takes it.
        text: as it was written.
    """

    method: str | None
    option: str
    value: Any
    text: str

    @property
    def name(self) -> str:
        """Name for files: ``keep_rate-0.7``."""
        return f"{self.option}-{self.text}" if self.method is None else f"{self.method}.{self.option}-{self.text}"


def parse_sweep(text: str) -> list[SweepPoint]:
    """Read ``"keep_rate:1.0,0.7"``, ``"evit.keep_rate:1.0,0.7"`` or ``"grid:8x4x4,Tx2x2"``, in this order.

    The options are those that the registered methods declare in ``budgets``; ``T`` in a grid is the clip's own count.

    Raises:
        StvideoError: not of this form, an option that is no budget, or a value that comes twice.
    """
    name, colon, values = text.replace(" ", "").partition(":")
    texts = [part for part in values.split(",") if part]
    if not colon or not texts:
        raise StvideoError(
            f"sweep={text}: expected OPTION:VALUE,VALUE,... or METHOD.OPTION:..., e.g. keep_rate:1.0,0.7,0.5 or "
            "stgm.grid:8x4x4,8x2x2"
        )
    method, dot, option = name.rpartition(".")
    methods = [method] if dot else list_reductions()
    kinds = {key: budget.kind for each in methods for key, budget in reduction_class(each).budgets.items()}
    if option not in kinds:
        raise StvideoError(
            f"sweep={text}: there is no budget {option!r}{nearest(option, kinds)}; choose {', '.join(kinds) or 'none'}"
        )
    points = [SweepPoint(method or None, option, _value(kinds[option], part, text), part) for part in texts]
    if any(point.value == other.value for point, other in combinations(points, 2)):  # 0.5 and 0.50 are one
        raise StvideoError(f"sweep={text}: a value comes twice")
    return points


def at_budget(model: Model, point: SweepPoint) -> Model:
    """Build a twin of ``model`` at another budget: of its reductions that have the option, or of a new one if dense.

    Raises:
        StvideoError: a model that takes no reductions, one whose reductions lack the option, or a value that it does
            not take.
    """
    twin, change = twin_of(model), {point.option: point.value}
    present = reductions_of(twin)
    methods = [
        name
        for name, reduction in present.items()
        if point.option in reduction.budgets and point.method in (None, name)
    ]
    if methods:
        set_budget(twin, dict.fromkeys(methods, change))
        return twin
    if present:
        raise StvideoError(f"sweep over {point.option}: {', '.join(present)} of this model has no such option")
    torch.manual_seed(0)  # an STGM brings weights of its own; the same ones at every budget
    apply_reduction(twin, point.method or _method_of(point.option), **change)
    return twin


def _method_of(option: str) -> str:
    """Name the method that a bare ``option`` means on a dense model."""
    found = {name: reduction_class(name).budgets for name in list_reductions()}
    declared = [name for name, budgets in found.items() if option in budgets]
    default = [name for name in declared if found[name][option].is_default]
    candidates = default or [name for name in declared if not reduction_class(name).is_control]
    if len(candidates) != 1:
        raise StvideoError(
            f"sweep over {option}: {', '.join(candidates)} have it; say which, e.g. sweep={candidates[0]}.{option}:..."
        )
    return candidates[0]


def _value(kind: str, part: str, text: str) -> Any:
    if kind == "grid":
        match = re.fullmatch(r"(\d+|T)x(\d+)x(\d+)", part)
        if match is None:
            raise StvideoError(f"sweep={text}: a grid is TIMExROWSxCOLUMNS, e.g. 8x4x4 or Tx4x4, not {part!r}")
        return [None if match[1] == "T" else int(match[1]), int(match[2]), int(match[3])]
    if re.fullmatch(r"\d+", part, re.ASCII):
        return int(part)
    if not re.fullmatch(r"-?(\d+\.?\d*|\.\d+)(e-?\d+)?", part, re.ASCII):
        raise StvideoError(f"sweep={text}: {part!r} is not a number")
    return float(part)
