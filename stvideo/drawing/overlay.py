"""Paint the state of every patch on a video frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stvideo.drawing.geometry import Crop
from stvideo.drawing.states import DROPPED, FUSED, KEPT, SHARED, LayerStates

# Share of the frame that stays visible, and of the tint over it.
DROPPED_LIGHT = 0.22
FUSED_STRENGTH = 0.62
SHARED_STRENGTH = 0.72
OUTSIDE_GRAY = 128  # what the model does not see fades towards this gray
OUTSIDE_STRENGTH = 0.75
CROP_LINE = (255, 255, 255)
EDGE_COLOR = (12, 12, 16)


class FramePainter:
    """Draws one frame of a layer, over as many pictures of the same size as wanted.

    Kept patches stay as they are, fused ones are tinted, dropped ones dark, patches that share a token take the
    colour of that token; what lies outside the crop is faded.

    Args:
        states: what became of the patches.
        t: frame of the patch grid.
        crop: where the patch grid lies; its frame size is the size of the pictures.
        edges: draw lines between patches of different tokens, where one of them is shared or fused.
        outline: draw the border of the crop, if something lies outside it.
    """

    def __init__(self, states: LayerStates, t: int, crop: Crop, edges: bool = True, outline: bool = True) -> None:
        rows, columns = crop.patch_of_pixels(*states.token.shape[1:])
        at = np.ix_(rows.clip(min=0), columns.clip(min=0))
        inside = ((rows >= 0)[:, None] & (columns >= 0)[None])[..., None]
        # Whatever a patch becomes, its picture is  own * picture + from_gray * gray + constant.
        own, from_gray, constant = _mixture(states, t)
        self._own = np.where(inside, own[at], np.float32(0))
        self._from_gray = np.where(inside, from_gray[at], np.float32(1 - OUTSIDE_STRENGTH))
        self._constant = np.where(inside, constant[at], np.float32(OUTSIDE_GRAY * OUTSIDE_STRENGTH))
        self._lines = _edges(states, t, rows, columns) if edges else np.zeros(inside.shape[:2], bool)
        self._border = np.zeros(inside.shape[:2], bool)
        if outline and not crop.covers_frame:
            _outline(self._border, rows, columns)

    def __call__(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Draw over ``frame`` (h, w, 3) uint8 RGB; returns a new array."""
        gray = (frame @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]
        painted = self._own * frame
        painted += self._from_gray * gray
        painted += self._constant
        result = (painted + 0.5).clip(0, 255).astype(np.uint8)
        result[self._lines] = EDGE_COLOR
        result[self._border] = CROP_LINE
        return result


def paint(
    frame: NDArray[np.uint8], states: LayerStates, t: int, crop: Crop, edges: bool = True, outline: bool = True
) -> NDArray[np.uint8]:
    """Draw frame ``t`` of a layer over one picture of any size; see `FramePainter`."""
    return FramePainter(states, t, crop.scaled(frame.shape[1], frame.shape[0]), edges, outline)(frame)


def _mixture(states: LayerStates, t: int) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """For each patch: the weights of the picture (H, W, 1) and of its gray copy (H, W, 3), and what is added."""
    state, color = states.state[t][..., None], states.color[t].astype(np.float32)
    own = (state == KEPT).astype(np.float32)
    from_gray = np.where(state == DROPPED, np.float32(DROPPED_LIGHT), np.float32(0)).repeat(3, axis=-1)
    constant = np.zeros_like(color)
    for kind, strength in ((FUSED, FUSED_STRENGTH), (SHARED, SHARED_STRENGTH)):
        # Half of the tint follows the light of the picture, so that its content stays readable.
        from_gray = np.where(state == kind, (1 - strength) + strength * 0.5 * color / 255, from_gray)
        constant = np.where(state == kind, strength * 0.5 * color, constant)
    # A patch that came into a shared token through a fused one: its colour, but darker.
    through_fused = (state == SHARED) & states.fused[t][..., None]
    from_gray = np.where(through_fused, 0.6 * from_gray, from_gray)
    constant = np.where(through_fused, 0.6 * constant, constant)
    return own, from_gray.astype(np.float32), constant.astype(np.float32)


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


def _outline(border: NDArray[np.bool_], rows: NDArray[np.int64], columns: NDArray[np.int64]) -> None:
    """Mark the border of the crop, just outside it."""
    y, x = np.flatnonzero(rows >= 0), np.flatnonzero(columns >= 0)
    if not len(y) or not len(x):
        return
    top, bottom, left, right = y[0], y[-1], x[0], x[-1]
    span_y, span_x = slice(max(top - 1, 0), bottom + 2), slice(max(left - 1, 0), right + 2)
    for row in (top - 1, bottom + 1):
        if 0 <= row < border.shape[0]:
            border[row, span_x] = True
    for column in (left - 1, right + 1):
        if 0 <= column < border.shape[1]:
            border[span_y, column] = True
