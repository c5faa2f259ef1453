"""What the arguments of Swin-like models must satisfy; each check raises one clear `StvideoError`."""

from __future__ import annotations

import math
from collections.abc import Sequence

from stvideo.core.errors import StvideoError


def check_size(img_size: int | Sequence[int]) -> tuple[int, int]:
    """``img_size`` as (height, width); raises `StvideoError` unless both are positive numbers of pixels."""
    try:
        height, width = (img_size, img_size) if isinstance(img_size, int) else map(int, img_size)
    except (TypeError, ValueError):
        raise StvideoError(f"img_size must be a number of pixels or (height, width), not {img_size!r}") from None
    if height < 1 or width < 1:
        raise StvideoError(f"img_size must be positive, not {height}x{width}")
    return height, width


def check_shape(
    embed_dim: int, depths: Sequence[int], num_heads: Sequence[int], window_size: int, min_stages: int
) -> None:
    """Raise `StvideoError` unless the stages fit together."""
    if not depths or len(depths) != len(num_heads):
        raise StvideoError(f"depths {list(depths)} and num_heads {list(num_heads)} must have one number per stage")
    if len(depths) < min_stages:
        raise StvideoError(f"depths {list(depths)}: semantic tokens begin in stage {min_stages}, so there must be one")
    if min(depths) < 1 or window_size < 1:
        raise StvideoError(f"depths {list(depths)} and window_size {window_size} must be positive")
    for index, heads in enumerate(num_heads):
        if heads < 1 or embed_dim * 2**index % heads:
            raise StvideoError(f"stage {index}: {embed_dim * 2**index} channels are not divisible by {heads} heads")


def check_tokens_per_window(count: int, window: int) -> int:
    """The side of the square that ``count`` tokens form; raises `StvideoError` unless it fits into the window."""
    if not isinstance(count, int) or isinstance(count, bool) or count < 1 or math.isqrt(count) ** 2 != count:
        raise StvideoError(f"tokens_per_window must be a square number such as 4, 9 or 16, not {count!r}")
    if count > window * window:
        raise StvideoError(
            f"tokens_per_window {count} is larger than the window of {window}x{window} = {window * window} patches"
        )
    return math.isqrt(count)
