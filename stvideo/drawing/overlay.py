"""Paint the state of every patch on a video frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stvideo.drawing.geometry import PatchArea
from stvideo.drawing.states import DROPPED, FUSED, KEPT, SHARED, LayerStates

# Share of the frame that stays visible, and of the tint over it.
DROPPED_LIGHT = 0.22
FUSED_STRENGTH = 0.62
SHARED_STRENGTH = 0.72
THROUGH_FUSED = 0.6  # light of a patch that came into a shared token through a fused one
OUTSIDE_GRAY = 128  # what the model does not see fades towards this gray
OUTSIDE_STRENGTH = 0.75
AREA_LINE = (255, 255, 255)
TOKEN_LINE = (12, 12, 16)
SMALLEST_LINED = 4  # pixels of a patch; lines would hide smaller ones


class FramePainter:
    """Draw one time step of a layer, over as many pictures of the same size as wanted.

    Kept patches stay as they are, fused ones are tinted, dropped ones dark, patches that share a token take the
    colour of that token, with lines around it; what lies outside the patch grid is faded.

    Args:
        states: what became of the patches.
        t: time step of the patch grid, see `LayerStates.step_of`.
        area: where the patch grid lies; its frame size is the size of the pictures.
    """

    def __init__(self, states: LayerStates, t: int, area: PatchArea) -> None:
        rows, columns = area.patch_of_pixels(*states.token.shape[1:])
        at = np.ix_(rows.clip(min=0), columns.clip(min=0))
        inside = ((rows >= 0)[:, None] & (columns >= 0)[None])[..., None]
        # Whatever a patch becomes, its picture is  own * picture + from_gray * gray + constant.
        own, from_gray, constant = _mixture(states, t)
        self._own = np.where(inside, own[at], np.float32(0))
        self._from_gray = np.where(inside, from_gray[at], np.float32(1 - OUTSIDE_STRENGTH))
        self._constant = np.where(inside, constant[at], np.float32(OUTSIDE_GRAY * OUTSIDE_STRENGTH))
        patch = min(area.height / states.token.shape[1], area.width / states.token.shape[2])
        token = np.where(inside[..., 0], states.token[t][at], -2)
        drawn = np.isin(states.state[t], (SHARED, FUSED))[at]
        self._lines = _lines(token, drawn, 1 + int(patch) // 40) & (patch >= SMALLEST_LINED)
        self._border = (_grown(rows >= 0)[:, None] & _grown(columns >= 0)[None]) & ~inside[..., 0]
        self._border &= not area.covers_frame

    def __call__(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Draw over ``frame`` (h, w, 3) uint8 RGB; returns a new array."""
        gray = (frame @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]
        painted = self._own * frame
        painted += self._from_gray * gray
        painted += self._constant
        result = (painted + 0.5).clip(0, 255).astype(np.uint8)
        result[self._lines] = TOKEN_LINE
        result[self._border] = AREA_LINE
        return result


def paint(frame: NDArray[np.uint8], states: LayerStates, t: int, area: PatchArea) -> NDArray[np.uint8]:
    """Draw time step ``t`` of a layer over one picture of any size; see `FramePainter`."""
    return FramePainter(states, t, area.scaled(frame.shape[1], frame.shape[0]))(frame)


def _mixture(states: LayerStates, t: int) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Compute for each patch the weights of the picture (H, W, 1) and of its gray copy (H, W, 3), and what is added."""
    state, color = states.state[t][..., None], states.color[t].astype(np.float32)
    through_fused = (state == SHARED) & states.fused[t][..., None]
    light = np.where(through_fused, THROUGH_FUSED, 1.0)
    strength = np.where(state == FUSED, FUSED_STRENGTH, SHARED_STRENGTH)
    # Half of the tint follows the light of the picture, so that its content stays readable.
    tinted_gray, tint = light * (1 - strength + strength * 0.5 * color / 255), light * strength * 0.5 * color
    own = (state == KEPT).astype(np.float32)
    from_gray = np.select([state == DROPPED, state == KEPT], [np.float32(DROPPED_LIGHT), np.float32(0)], tinted_gray)
    constant = np.where(np.isin(state, (DROPPED, KEPT)), 0, tint)
    return own, from_gray.astype(np.float32), constant.astype(np.float32)


def _lines(token: NDArray[np.int64], drawn: NDArray[np.bool_], thickness: int) -> NDArray[np.bool_]:
    """Mark the pixels (h, w) of lines between tokens of which one is ``drawn``; token -2 lies outside the grid.

    A line of one pixel lies on the right of, or below, the border between two patches; thicker ones on both sides.
    """
    lines = np.zeros(token.shape, bool)
    for axis in (0, 1):
        before, drawn_before = np.roll(token, 1, axis), np.roll(drawn, 1, axis)
        border = (token != before) & (np.minimum(token, before) > -2) & (drawn | drawn_before)
        border.swapaxes(0, axis)[0] = False  # its neighbour is the far end of the picture
        for shift in range(-(thickness // 2), thickness - thickness // 2):
            lines |= np.roll(border, shift, axis)
    return lines


def _grown(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mark one more pixel at each end."""
    return np.convolve(inside, [1, 1, 1], "same") > 0
