"""Checks of the options that reductions share, and the arithmetic of their budgets."""

from __future__ import annotations

from typing import Any

from stvideo.core.errors import StvideoError


def check_layers(name: str, layers: Any, depth: int, may_be_empty: bool = False) -> tuple[int, ...]:
    """Return ``layers`` as a rising tuple of block numbers inside the network; raises `StvideoError` otherwise."""
    try:
        numbers = (layers,) if isinstance(layers, int) else tuple(layers)
    except TypeError:
        numbers = ()
    is_empty = not numbers and not may_be_empty
    if is_empty or not all(isinstance(n, int) and not isinstance(n, bool) for n in numbers):
        raise StvideoError(f"{name}: layers must be block numbers such as [3, 6, 9], not {layers!r}")
    if len(set(numbers)) != len(numbers):
        raise StvideoError(f"{name}: layers {list(numbers)} names a block twice")
    for number in numbers:
        if not 0 <= number < depth:
            raise StvideoError(f"{name}: layer {number} is outside the model's {depth} blocks (0 to {depth - 1})")
    return tuple(sorted(numbers))


def spread_layers(depth: int) -> tuple[int, ...]:
    """Return the default layers of keep-or-drop methods: 3, 6, 9 of 12 and 4, 8, 12 of 16 (EViT, section 4.1)."""
    third = max(depth // 4, 1)
    return tuple(n for n in (third, 2 * third, 3 * third) if n < depth) or (0,)


def semantic_layers(depth: int) -> tuple[int, int]:
    """Return the default layers of an STGM: the two blocks after the first third, 4 and 5 of 12 (STViT, section 4)."""
    return depth // 3, depth // 3 + 1


def check_share(name: str, key: str, value: Any) -> float:
    """Return ``value`` as a float in (0, 1]; raises `StvideoError` otherwise."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
        raise StvideoError(f"{name}: {key} must be above 0 and at most 1, not {value!r}")
    return float(value)


def check_count(name: str, key: str, value: Any, least: int = 0) -> int:
    """Return ``value`` as a whole number of at least ``least``; raises `StvideoError` otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise StvideoError(f"{name}: {key} must be a whole number from {least} up, not {value!r}")
    return value


def check_range(name: str, option: str, bounds: Any, kind: str) -> tuple[float, float]:
    """Return ``bounds`` as (low, high) of a budget; raises `StvideoError` otherwise."""
    key = f"{option}_range"
    if not isinstance(bounds, (list, tuple)) or len(bounds) != 2:
        example = "[0.4, 1.0]" if kind == "share" else "[0, 8]"
        raise StvideoError(f"{name}: {key} must be two values such as {example}, not {bounds!r}")
    check = check_share if kind == "share" else check_count
    low, high = (check(name, key, value) for value in bounds)
    if low > high:
        raise StvideoError(f"{name}: {key} [{low:g}, {high:g}] must name the lower one first")
    return low, high


def between(low: float, high: float, share: float, kind: str) -> float:
    """Return the value of a budget at ``share`` of the way from ``low`` to ``high``; a whole number for counts."""
    value = low * (1.0 - share) + high * share
    return round(value) if kind == "count" else value


def snap(share: float, levels: int | None) -> float:
    """Round a share in [0, 1] to one of ``levels`` equal steps; None leaves it as it is."""
    if levels is None:
        return share
    return min(int(share * levels), levels - 1) / max(levels - 1, 1)
