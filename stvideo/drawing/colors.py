"""Colours for tokens: far apart for tokens that are close in the picture, the same for the same token.

Distances are taken in OKLab (Ottosson 2020), where equal steps look about equally large.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

LIGHTNESS = (0.74, 0.87, 0.60)
HUES = 12
CHROMA = 0.19


def oklch_to_srgb(lightness: float, chroma: float, hue: float) -> NDArray[np.float64]:
    """An OKLCH colour (hue in radians) as sRGB in [0, 1], with the chroma lowered until it can be shown."""
    for reduced in np.linspace(chroma, 0.0, 40):
        linear = _oklab_to_linear(np.array([lightness, reduced * np.cos(hue), reduced * np.sin(hue)]))
        if linear.min() >= -1e-4 and linear.max() <= 1 + 1e-4:
            break
    linear = linear.clip(0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def srgb_to_oklab(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., 3) sRGB in [0, 1] to (..., 3) OKLab."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    lms = linear @ np.linalg.inv(_LMS_TO_RGB).T
    return np.cbrt(lms) @ np.linalg.inv(_LAB_TO_LMS).T


_LAB_TO_LMS = np.array(
    [
        [1.0, 0.3963377774, 0.2158037573],
        [1.0, -0.1055613458, -0.0638541728],
        [1.0, -0.0894841775, -1.2914855480],
    ]
)
_LMS_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


def _oklab_to_linear(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    return _LMS_TO_RGB @ (_LAB_TO_LMS @ lab) ** 3


@cache
def palette() -> NDArray[np.uint8]:
    """(K, 3) sRGB colours to choose from."""
    colors = [
        oklch_to_srgb(lightness, CHROMA, 2 * np.pi * (hue + 0.33 * ring) / HUES)
        for ring, lightness in enumerate(LIGHTNESS)
        for hue in range(HUES)
    ]
    return np.round(np.array(colors) * 255).astype(np.uint8)


@cache
def _likeness() -> NDArray[np.float64]:
    """(K, K) how easily two palette colours are taken for each other: 1 the same, towards 0 far apart."""
    lab = srgb_to_oklab(palette() / 255)
    distance = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
    return np.exp(-((distance / 0.12) ** 2)) + 4.0 * (distance < 1e-9)


def token_colors(token_of_patch: NDArray[np.int64], given: dict[int, int] | None = None) -> dict[int, int]:
    """Choose a palette entry for every token of a clip.

    Tokens that are close in the picture, or follow each other in time at the same place, repel each other's
    colours; a token keeps one colour in all frames that it spans. The choice depends on the arguments alone.

    Args:
        token_of_patch: (T, H, W) token of each patch, -1 for patches that need no colour.
        given: palette entries that are settled already, by token.

    Returns:
        Palette entry (row of `palette`) by token.
    """
    chosen = dict(given or {})
    tokens, first = np.unique(token_of_patch, return_index=True)
    order = [int(t) for t in tokens[np.argsort(first)] if t >= 0]
    if not order:
        return chosen
    places = np.stack([_place(token_of_patch == token) for token in order])  # (M, 4)
    closeness = _closeness(places, max(token_of_patch.shape[1:]))
    settled = [i for i, token in enumerate(order) if token in chosen]
    # Among equally good entries the least used one wins, so that few colours carry many tokens.
    uses = np.bincount([chosen[order[i]] for i in settled], minlength=len(palette())).astype(float)
    for i, token in enumerate(order):
        if token in chosen:
            continue
        entries = [chosen[order[j]] for j in settled]
        cost = closeness[i, settled] @ _likeness()[entries] if settled else np.zeros(len(palette()))
        chosen[token] = int(np.argmin(cost + 1e-3 * uses))
        uses[chosen[token]] += 1
        settled.append(i)
    return chosen


def _place(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """First frame, last frame, mean row and mean column of a token."""
    frames, rows, columns = np.nonzero(mask)
    return np.array([frames.min(), frames.max(), rows.mean(), columns.mean()])


def _closeness(places: NDArray[np.float64], extent: int) -> NDArray[np.float64]:
    """(M, M) how much two tokens need different colours."""
    first, last, row, column = places.T
    gap = np.maximum(first[:, None], first[None]) - np.minimum(last[:, None], last[None])  # frames; <= 0: together
    away = np.hypot(row[:, None] - row[None], column[:, None] - column[None]) / extent
    in_time = np.select([gap <= 0, gap <= 1], [1.0, 0.5], default=0.1 / np.maximum(gap, 1))
    return in_time * (np.exp(-((away / 0.25) ** 2)) + 0.1)
