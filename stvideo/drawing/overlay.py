"""Paint the state of every patch on a video frame."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stvideo.drawing.geometry import Crop
from stvideo.drawing.states import DROPPED, FUSED, SHARED, LayerStates

# Share of the frame that stays visible, and of the tint over it.
DROPPED_LIGHT = 0.22
FUSED_STRENGTH = 0.62
SHARED_STRENGTH = 0.72
OUTSIDE_GRAY = 128  # what the model does not see fades towards this gray
OUTSIDE_STRENGTH = 0.75
CROP_LINE = (255, 255, 255)
EDGE_COLOR = (12, 12, 16)


def paint(
    frame: NDArray[np.uint8], states: LayerStates, t: int, crop: Crop, edges: bool = True, outline: bool = True
) -> NDArray[np.uint8]:
    """Draw one frame of a layer: kept patches as they are, fused ones tinted, dropped ones dark, patches that
    share a token in the colour of that token; what lies outside the crop is faded.

    Args:
        frame: (h, w, 3) uint8 RGB.
        states: what became of the patches.
        t: frame of the patch grid.
        crop: where the patch grid lies on this frame.
        edges: draw lines between patches of different tokens, where one of them is shared or fused.
        outline: draw the border of the crop, if something lies outside it.

    Returns:
        (h, w, 3) uint8 RGB, a new array.
    """
    if frame.shape[:2] != (crop.frame_height, crop.frame_width):
        crop = crop.scaled(frame.shape[1], frame.shape[0])
    rows, columns = crop.patch_of_pixels(*states.token.shape[1:])
    at = np.ix_(rows.clip(min=0), columns.clip(min=0))
    inside = (rows >= 0)[:, None] & (columns >= 0)[None]
    state, color = states.state[t][at], states.color[t][at].astype(np.float32)
    fused = states.fused[t][at]

    image = frame.astype(np.float32)
    gray = (image @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]
    painted = image.copy()
    painted = np.where((state == DROPPED)[..., None], DROPPED_LIGHT * gray, painted)
    tint = _tint(gray, color)
    painted = np.where((state == FUSED)[..., None], _mix(gray, tint, FUSED_STRENGTH), painted)
    painted = np.where((state == SHARED)[..., None], _mix(gray, tint, SHARED_STRENGTH), painted)
    # A patch that came into a shared token through a fused one: its colour, but darker.
    painted = np.where(((state == SHARED) & fused)[..., None], 0.6 * painted, painted)
    painted = np.where(inside[..., None], painted, _mix(gray, OUTSIDE_GRAY, OUTSIDE_STRENGTH))
    result = painted.clip(0, 255).round().astype(np.uint8)
    if edges:
        result[_edges(states, t, rows, columns)] = EDGE_COLOR
    if outline and not crop.covers_frame:
        _outline(result, rows, columns)
    return result


def _mix(below: NDArray[Any], above: NDArray[Any] | float, strength: float) -> NDArray[Any]:
    return (1 - strength) * below + strength * above


def _tint(gray: NDArray[Any], color: NDArray[Any]) -> NDArray[Any]:
    """The colour, somewhat darker where the picture is dark, so that its content stays readable."""
    return color * (0.5 + 0.5 * gray / 255)


def _edges(states: LayerStates, t: int, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(h, w) pixels of the lines between different tokens.

    The lines are one pixel wide on each side of small patches and grow with them; they never cover a patch.
    """
    token, state = states.token[t], states.state[t]
    drawn = (state == SHARED) | (state == FUSED)
    across = (token[:, 1:] != token[:, :-1]) & (drawn[:, 1:] | drawn[:, :-1])  # between columns
    down = (token[1:] != token[:-1]) & (drawn[1:] | drawn[:-1])
    height, width = len(rows), len(columns)
    mask = np.zeros((height, width), dtype=bool)
    for axis, (cells, border) in enumerate(((columns, across), (rows, down))):
        pixels = np.flatnonzero((cells[1:] != cells[:-1]) & (cells[1:] > 0) & (cells[:-1] >= 0)) + 1
        size = len(np.flatnonzero(cells == 0)) if (cells == 0).any() else 0
        if size < 4:
            continue  # a line would hide the patch
        thickness = 1 + size // 40
        for pixel in pixels:
            line = slice(pixel - thickness // 2, pixel - thickness // 2 + thickness)
            if axis == 0:
                hit = border[rows.clip(min=0), cells[pixel] - 1] & (rows >= 0)
                mask[:, line] |= hit[:, None]
            else:
                hit = border[cells[pixel] - 1, columns.clip(min=0)] & (columns >= 0)
                mask[line] |= hit[None]
    return mask


def _outline(image: NDArray[np.uint8], rows: NDArray[np.int64], columns: NDArray[np.int64]) -> None:
    """Draw the border of the crop just outside it, in place."""
    y, x = np.flatnonzero(rows >= 0), np.flatnonzero(columns >= 0)
    if not len(y) or not len(x):
        return
    top, bottom, left, right = y[0], y[-1], x[0], x[-1]
    span_y, span_x = slice(max(top - 1, 0), bottom + 2), slice(max(left - 1, 0), right + 2)
    for row in (top - 1, bottom + 1):
        if 0 <= row < image.shape[0]:
            image[row, span_x] = CROP_LINE
    for column in (left - 1, right + 1):
        if 0 <= column < image.shape[1]:
            image[span_y, column] = CROP_LINE
