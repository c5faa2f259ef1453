"""The painted frame shows each patch at its place."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from stvideo.drawing.geometry import PatchArea
from stvideo.drawing.overlay import AREA_LINE, paint
from stvideo.drawing.states import layer_states
from tests.painted_videos import patch_box
from tests.properties import unhurried
from tests.token_traces import dense_trace, keep_trace, semantic_trace


@unhurried
@given(st.data())
def test_the_only_kept_patch_is_the_only_bright_one(data):
    """Index round-trip: any grid, any crop, any (odd) frame size."""
    h, w = data.draw(st.integers(2, 8)), data.draw(st.integers(2, 8))
    width, height = data.draw(st.integers(60, 200)), data.draw(st.integers(60, 200))
    side = min(width, height) * data.draw(st.floats(0.7, 1.0))
    left, top = (width - side) * data.draw(st.floats(0, 1)), (height - side) * data.draw(st.floats(0, 1))
    crop = PatchArea(left, top, side, side, width, height)
    t, y, x = data.draw(st.integers(0, 2)), data.draw(st.integers(0, h - 1)), data.draw(st.integers(0, w - 1))
    kept = torch.zeros(3, h, w, dtype=torch.bool)
    kept[t, y, x] = True
    (states,) = layer_states(keep_trace(kept, fuse=data.draw(st.booleans())))
    frame = np.full((height, width, 3), 250, np.uint8)
    for frame_index in range(3):
        picture = paint(frame, states, frame_index, crop)
        for row in range(h):
            for column in range(w):
                box = patch_box(crop, row, column, h, w)
                center = picture[int((box[1] + box[3]) / 2), int((box[0] + box[2]) / 2)]
                assert (center.min() > 240) == (frame_index == t and (row, column) == (y, x))


def test_a_dense_frame_is_left_as_it_is():
    frame = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    (states,) = layer_states(dense_trace(1, 4, 4))
    assert np.array_equal(paint(frame, states, 0, PatchArea.whole(64, 48)), frame)


def test_outside_the_crop_is_faded_and_the_border_drawn():
    frame = np.zeros((40, 80, 3), np.uint8)
    (states,) = layer_states(dense_trace(1, 4, 4))
    picture = paint(frame, states, 0, PatchArea(20, 0, 40, 40, 80, 40))
    assert (picture[:, 20:60] == 0).all()
    assert (picture[:, 19] == AREA_LINE).all() and (picture[:, 60] == AREA_LINE).all()
    assert (picture[:, :19] == picture[0, 0]).all() and picture[0, 0, 0] > 60


def test_lines_run_between_tokens_and_not_inside_them():
    frame = np.full((64, 64, 3), 128, np.uint8)
    (states,) = layer_states(semantic_trace(1, 8, 8, (1, 2, 2)))
    picture = paint(frame, states, 0, PatchArea.whole(64, 64))
    dark = (picture < 20).all(axis=-1)
    lines = np.zeros((64, 64), bool)
    lines[32], lines[:, 32] = True, True
    assert np.array_equal(dark, lines)


def test_a_crop_of_another_resolution_is_scaled():
    (states,) = layer_states(semantic_trace(1, 4, 4, (1, 2, 2)))
    frame = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    small, large = PatchArea(10, 0, 30, 30, 40, 30), PatchArea(30, 0, 90, 90, 120, 90)
    assert np.array_equal(paint(frame, states, 0, small), paint(frame, states, 0, large))


def test_patches_too_small_for_lines_stay_visible():
    (states,) = layer_states(semantic_trace(1, 16, 16, (1, 16, 16)))
    paint(np.zeros((20, 20, 3), np.uint8), states, 0, PatchArea.whole(20, 20))
