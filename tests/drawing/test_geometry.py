"""Pixels and patches agree about where the model looked."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stvideo.drawing.geometry import PatchArea, fit, spread
from tests.painted_videos import patch_box
from tests.properties import unhurried


@st.composite
def crops(draw: st.DrawFn) -> tuple[PatchArea, int, int]:
    frame_width, frame_height = draw(st.integers(16, 400)), draw(st.integers(16, 400))
    width = draw(st.floats(8, frame_width))
    height = draw(st.floats(8, frame_height))
    left = draw(st.floats(0, frame_width - width))
    top = draw(st.floats(0, frame_height - height))
    return (
        PatchArea(left, top, width, height, frame_width, frame_height),
        draw(st.integers(1, 20)),
        draw(st.integers(1, 20)),
    )


@unhurried
@given(crops())
def test_every_pixel_lies_in_the_box_of_its_patch(case):
    crop, rows, columns = case
    row_of, column_of = crop.patch_of_pixels(rows, columns)
    assert row_of.shape == (crop.frame_height,) and column_of.shape == (crop.frame_width,)
    for x, column in enumerate(column_of):
        if column >= 0:
            left, _, right, _ = patch_box(crop, 0, column, rows, columns)
            assert left - 1e-6 <= x + 0.5 <= right + 1e-6
        else:
            assert not crop.left + 1e-6 < x + 0.5 < crop.left + crop.width - 1e-6
    for y, row in enumerate(row_of):
        if row >= 0:
            _, top, _, bottom = patch_box(crop, row, 0, rows, columns)
            assert top - 1e-6 <= y + 0.5 <= bottom + 1e-6


@unhurried
@given(crops(), st.integers(8, 300), st.integers(8, 300))
def test_a_scaled_crop_marks_the_same_part_of_the_frame(case, width, height):
    crop, rows, columns = case
    scaled = crop.scaled(width, height)
    for x in range(width):
        original = (x + 0.5) * crop.frame_width / width
        inside = crop.left <= original < crop.left + crop.width
        column = scaled.patch_of_pixels(rows, columns)[1][x]
        near_border = min(abs(original - crop.left), abs(original - crop.left - crop.width)) < 1e-6
        assert near_border or inside == (column >= 0)


def test_whole_frame_has_no_outside():
    crop = PatchArea.whole(31, 17)
    assert crop.covers_frame
    rows, columns = crop.patch_of_pixels(3, 4)
    assert rows.min() == 0 and rows.max() == 2 and columns.min() == 0 and columns.max() == 3


def test_a_crop_that_leaves_a_strip_is_told():
    assert not PatchArea(10, 0, 20, 20, 40, 20).covers_frame
    assert PatchArea(0.4, 0, 39.2, 20, 40, 20).covers_frame


@pytest.mark.parametrize("size,box,expected", [((340, 256), (216, 240), (216, 163)), ((1, 1000), (50, 50), (1, 50))])
def test_fit_keeps_the_shape(size, box, expected):
    assert fit(*size, *box) == expected


@pytest.mark.parametrize("count,most,expected", [(3, 8, [0, 1, 2]), (9, 3, [0, 4, 8]), (5, 1, [0]), (0, 4, [])])
def test_spread_takes_both_ends(count, most, expected):
    assert spread(count, most) == expected


def test_even_patches_take_equal_numbers_of_pixels():
    rows, columns = PatchArea(16, 0, 32, 32, 64, 32).patch_of_pixels(4, 4)
    assert np.bincount(rows).tolist() == [8, 8, 8, 8]
    assert np.bincount(columns[columns >= 0]).tolist() == [8, 8, 8, 8]
    assert (columns[:16] == -1).all() and (columns[48:] == -1).all()
