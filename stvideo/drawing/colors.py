"""Choose colours for tokens: far apart for tokens that are close in the picture, the same for the same token."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# 12 hues at each of three lightnesses of OKLCH (Ottosson 2020), as strong as a screen can show them.
HUES, LIGHTNESS, CHROMA = 12, (0.74, 0.87, 0.60), 0.15
_HEX = """
fe77a6 fe816e f78c0f d0a501 9eba02 2dcb65 15c5ae 0cc0d7 3fb5fd 8ba6fe ba92fe eb78e3
fdc2ca fdc6b3 fec98d f1d505 aaec57 29f9a8 23f2e9 8be3fe b5d8fd cbd0fe e5c6fe febde8
da404f c75e0a a6760a 86860f 319906 0c9675 189197 0c8cb8 337aef 8264e7 b051c5 cd4390
"""
PALETTE = np.frombuffer(bytes.fromhex(_HEX), np.uint8).reshape(-1, 3)
"""(K, 3) sRGB colours to choose from."""


def token_colors(token: NDArray[np.int64], known: dict[bytes, int]) -> NDArray[np.uint8]:
    """Choose a colour for every token of a clip.

    Tokens that are close in the picture, or follow each other in time at the same place, repel each other's
    colours; a token keeps one colour in all frames that it spans. The choice depends on the arguments alone.

    Args:
        token: (T, H, W) token of each patch, -1 for patches that need no colour.
        known: row of `PALETTE` by the patches of a token, as in earlier layers; tokens new to it are added.

    Returns:
        (T, H, W, 3) sRGB; 0 for patches that need no colour.
    """
    color = np.zeros((*token.shape, 3), np.uint8)
    flat = token.ravel()
    order = np.argsort(flat, kind="stable")
    members = [m for m in np.split(order, np.flatnonzero(np.diff(flat[order])) + 1) if flat[m[0]] >= 0]
    if not members:
        return color
    members.sort(key=lambda positions: int(positions[0]))
    closeness = _closeness(np.array([_place(m, token.shape) for m in members]), max(token.shape[1:]))
    entries = np.array([known.get(m.tobytes(), -1) for m in members])
    # Among equally good entries the least used one wins, so that few colours carry many tokens.
    uses = np.bincount(entries[entries >= 0], minlength=len(PALETTE)).astype(float)
    for i in np.flatnonzero(entries < 0):
        settled = np.flatnonzero(entries >= 0)
        entries[i] = np.argmin(closeness[i, settled] @ _LIKENESS[entries[settled]] + 1e-3 * uses)
        uses[entries[i]] += 1
    for positions, entry in zip(members, entries, strict=True):
        known[positions.tobytes()] = int(entry)
        color.reshape(-1, 3)[positions] = PALETTE[entry]
    return color


def _likeness() -> NDArray[np.float64]:
    """Compute the likeness of every two colours of the palette, (K, K): 1 the same, towards 0 far apart."""
    ring, hue = np.divmod(np.arange(len(PALETTE)), HUES)
    angle = 2 * np.pi * (hue + 0.33 * ring) / HUES
    lab = np.stack((np.array(LIGHTNESS)[ring], CHROMA * np.cos(angle), CHROMA * np.sin(angle)), axis=-1)
    distance = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
    return np.exp(-((distance / 0.12) ** 2)) + 4.0 * np.eye(len(PALETTE))


_LIKENESS = _likeness()


def _place(positions: NDArray[np.int64], shape: tuple[int, ...]) -> tuple[float, ...]:
    """Find first frame, last frame, mean row and mean column of a token."""
    frames, rows, columns = np.unravel_index(positions, shape)
    return frames.min(), frames.max(), rows.mean(), columns.mean()


def _closeness(places: NDArray[np.float64], extent: int) -> NDArray[np.float64]:
    """Compute how much every two tokens need different colours, (M, M)."""
    first, last, row, column = places.T
    gap = np.maximum(first[:, None], first[None]) - np.minimum(last[:, None], last[None])  # frames; <= 0: together
    away = np.hypot(row[:, None] - row[None], column[:, None] - column[None]) / extent
    in_time = np.select([gap <= 0, gap <= 1], [1.0, 0.5], default=0.1 / np.maximum(gap, 1))
    return in_time * (np.exp(-((away / 0.25) ** 2)) + 0.1)
