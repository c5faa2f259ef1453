"""Models of equal cost: twins that share weights, budgets solved for a cost in GMACs, and the random control."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from itertools import chain
from typing import Any, TypeVar

from stvideo.core.errors import StvideoError
from stvideo.core.macs import Model, count_macs, to_meta
from stvideo.reduction.apply import apply_reduction, reduction_options, reductions_of, remove_reduction
from stvideo.reduction.base import Reducible, list_reductions, reduction_class

Kind = TypeVar("Kind", bound=Reducible)


def twin_of(model: Model) -> Model:
    """Copy ``model`` but for its weights, which both share, so that the copy's reductions can be changed."""
    tensors = chain(model.parameters(), model.buffers())
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


def cost_of(model: Reducible, reductions: Mapping[str, Any] | None = None) -> float:
    """Count the GMACs of one clip at the model's own input size.

    Args:
        model: not changed.
        reductions: ``{method: options}`` to count with instead of the model's own; None: the model as it is.
    """
    counted = to_meta(model)
    if reductions is not None:
        remove_reduction(counted)
        for method, settings in reductions.items():
            apply_reduction(counted, method, **(settings or {}))
    return count_macs(counted, model.example_shape()).total


def solve_budget(
    model: Reducible, method: str, gmacs: float, option: str | None = None, options: Mapping[str, Any] | None = None
) -> Any:
    """Find the budget at which ``method`` costs ``gmacs``, by bisection on counted GMACs.

    Args:
        model: its own reductions are left out; it is not changed.
        method: a reduction whose ``option`` is a share or a count.
        gmacs: the cost wanted, 10^9 multiply-accumulates per clip at the model's own input size.
        option: one of the method's budgets; None: the first that is a share or a count.
        options: the method's other options.

    Returns:
        The value, exact up to the rounding of token counts.

    Raises:
        StvideoError: the method has no such budget, or none brings the cost down to ``gmacs``.
    """
    budgets = reduction_class(method).budgets
    option = option or next((name for name, budget in budgets.items() if budget.kind != "grid"), None)
    if option is None or option not in budgets or budgets[option].kind == "grid":
        raise StvideoError(f"{method}: it has no budget that is one number, so none can be solved for a cost")

    def cost(value: float) -> float:
        return cost_of(model, {method: {**(options or {}), option: value}})

    if budgets[option].kind == "share":
        tried = _bisect(cost, 0.0, 1.0, gmacs, steps=12)
    else:
        tried = _bisect_counts(cost, gmacs, most=_most_tokens(model))
    best = min(tried, key=lambda value: abs(tried[value] - gmacs))
    if tried[best] > 1.02 * gmacs:
        raise StvideoError(
            f"{method}: no {option.replace('_', ' ')} brings the model down to {gmacs:.3g} GMACs "
            "with these layers; start dropping in an earlier layer"
        )
    return best


def control_of(model: Kind) -> Kind | None:
    """Build a twin of ``model`` that keeps random tokens instead, at the cost of its reductions.

    It drops tokens in the same layers where that can become as cheap, else in its default ones.

    Returns:
        None for a model that costs no less than its dense form: there is nothing to drop.

    Raises:
        StvideoError: the model takes no such reduction, or no keep rate reaches that cost.
    """
    present = reductions_of(model)
    target = reduction_options(model)
    if not present or cost_of(model) >= cost_of(model, {}):
        return None
    twin = twin_of(model)
    remove_reduction(twin)
    layers = next((reduction.layers for reduction in present.values() if reduction.layers), None)
    try:
        apply_reduction(twin, control(), equal_to=target, layers=layers)
    except StvideoError:
        apply_reduction(twin, control(), equal_to=target)
    return twin


def control() -> str:
    """Name the method that the others are compared with at equal cost."""
    return next(name for name in list_reductions() if reduction_class(name).is_control)


def _bisect(cost: Any, low: float, high: float, wanted: float, steps: int) -> dict[float, float]:
    tried: dict[float, float] = {}
    for _ in range(steps):
        middle = (low + high) / 2
        tried[middle] = cost(middle)
        low, high = (low, middle) if tried[middle] > wanted else (middle, high)
    return tried


def _bisect_counts(cost: Any, wanted: float, most: int) -> dict[float, float]:
    """Costs of whole numbers around the wanted one; the cost may rise with the count (tokens) or fall with it (r)."""
    tried: dict[float, float] = {}
    for value in (1, most):
        try:
            tried[value] = cost(value)
        except StvideoError:  # more than the method takes
            continue
    low, high = 1, most
    rises = tried.get(most, float("inf")) >= tried.get(1, 0.0)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            tried[middle] = cost(middle)
        except StvideoError:
            high = middle
            continue
        is_too_dear = tried[middle] > wanted
        low, high = (low, middle) if is_too_dear == rises else (middle, high)
    return tried


def _most_tokens(model: Reducible) -> int:
    host = model.reduction_host()
    rows, columns = host.grid
    return rows * columns * (host.num_frames if host.attention == "joint" else 1)
