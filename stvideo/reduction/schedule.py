"""Keep rates of training: falling along a schedule (EViT, section 4.1), or drawn afresh for every step."""

from __future__ import annotations

import math
from typing import Any

import torch

from stvideo.core.errors import StvideoError
from stvideo.reduction.base import check_unit


def keep_rate_at(
    epoch: float, base: float, start_epoch: float, shrink_epochs: float, levels: int | None = None
) -> float:
    """Keep rate at a point of training.

    1 until ``start_epoch``, then half a cosine down to ``base`` over ``shrink_epochs``, then ``base``.

    Args:
        epoch: epochs trained so far; the fraction counts, so that the rate changes every iteration.
        base: the final keep rate, in (0, 1].
        start_epoch: epochs before the shrinking starts.
        shrink_epochs: epochs that the shrinking takes; 0 means at once.
        levels: how many different rates there may be, 1 and ``base`` among them; None for as many as iterations.
    """
    if epoch < start_epoch:
        return 1.0
    if epoch >= start_epoch + shrink_epochs:
        return base
    progress = (epoch - start_epoch) / shrink_epochs
    return base + (1.0 - base) * snap(0.5 * (1.0 + math.cos(math.pi * progress)), levels)


def draw_keep_rate(bounds: tuple[float, float], generator: torch.Generator, levels: int | None = None) -> float:
    """A keep rate drawn evenly between ``bounds``, or from ``levels`` rates spread over them, both bounds included."""
    low, high = bounds
    share = snap(torch.rand((), generator=generator, dtype=torch.float64).item(), levels)
    return low * (1.0 - share) + high * share


def spread_keep_rates(bounds: tuple[float, float] | None, count: int) -> list[dict[str, Any]]:
    """``count`` budgets from the lower to the upper of ``bounds``."""
    if bounds is None:
        return []
    low, high = bounds
    return [{"keep_rate": round(low + (high - low) * i / max(count - 1, 1), 6)} for i in range(count)]


def snap(share: float, levels: int | None) -> float:
    """The one of ``levels`` equal steps of [0, 1] that ``share`` lies in; None leaves it as it is."""
    if levels is None:
        return share
    return min(int(share * levels), levels - 1) / max(levels - 1, 1)


def check_rate_range(name: str, keep_rate_range: Any) -> tuple[float, float] | None:
    """``keep_rate_range`` as (low, high) in (0, 1]; raises `StvideoError` otherwise. None stays None."""
    if keep_rate_range is None:
        return None
    if not isinstance(keep_rate_range, (list, tuple)) or len(keep_rate_range) != 2:
        raise StvideoError(f"{name}: keep_rate_range must be two rates such as [0.4, 1.0], not {keep_rate_range!r}")
    low, high = (check_unit(name, "keep_rate_range", rate) for rate in keep_rate_range)
    if low > high:
        raise StvideoError(f"{name}: keep_rate_range [{low:g}, {high:g}] must name the lower rate first")
    return low, high
