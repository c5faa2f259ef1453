"""Checks of constructor arguments that several models share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stvideo.core.errors import StvideoError


def check_img_size(img_size: int | Sequence[int], patch_size: int = 1) -> tuple[int, int]:
    """Return ``img_size`` as (height, width); raise `StvideoError` unless both are positive multiples of the patch."""
    try:
        height, width = (img_size, img_size) if isinstance(img_size, int) else map(int, img_size)
    except (TypeError, ValueError):
        raise StvideoError(f"img_size must be a number of pixels or (height, width), not {img_size!r}") from None
    if height < 1 or width < 1:
        raise StvideoError(f"img_size must be positive, not {height}x{width}")
    if height % patch_size or width % patch_size:
        raise StvideoError(
            f"image size {height}x{width} is not divisible by the patch size {patch_size}; "
            f"the nearest that is: {nearest_multiple(height, patch_size)}x{nearest_multiple(width, patch_size)}"
        )
    return height, width


def nearest_multiple(value: int, step: int) -> int:
    """Find the positive multiple of ``step`` closest to ``value``."""
    return max(step, round(value / step) * step)


def check_choice(name: str, value: Any, choices: Sequence[Any]) -> Any:
    """Return ``value``; raise `StvideoError` unless it is one of ``choices``."""
    if value not in choices:
        raise StvideoError(f"{name} must be one of {', '.join(map(str, choices))}, not {value!r}")
    return value


def take_indices(indices: int | Sequence[int] | None, count: int, there: Sequence[int]) -> list[int]:
    """List numbers of blocks or stages in rising order: all for None, the last n for an int.

    Raises:
        StvideoError: one that is not ``there``. Negative ones count from the end of all ``count``.
    """
    if indices is None or (isinstance(indices, int) and 0 < indices <= len(there)):
        return list(there if indices is None else there[-indices:])
    given = [indices] if isinstance(indices, int) else indices
    numbers = sorted({index + count if index < 0 else index for index in given})
    for number in numbers:
        if number not in there:
            raise StvideoError(f"there are no features of block {number}; there are of {', '.join(map(str, there))}")
    return numbers
