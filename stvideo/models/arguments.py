"""Checks of constructor arguments that several models share."""

from __future__ import annotations

from collections.abc import Sequence

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


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise `StvideoError` unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise StvideoError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
