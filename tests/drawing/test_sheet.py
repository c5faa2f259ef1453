"""The sheet: every picture where the layout says it is."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from stvideo.drawing.geometry import PatchArea
from stvideo.drawing.sheet import draw_sheet
from stvideo.drawing.states import layer_states
from stvideo.drawing.text import font
from tests.painted_videos import patch_box
from tests.token_traces import dense_trace, keep_trace, semantic_trace


def frames(t: int, height: int, width: int) -> np.ndarray:
    return np.full((t, height, width, 3), 250, np.uint8)


@pytest.mark.parametrize("height,width", [(120, 160), (171, 95), (64, 64), (33, 201)])
def test_the_kept_patch_is_lit_in_its_cell_only(height, width):
    t, h, w = 5, 4, 4
    kept = torch.zeros(t, h, w, dtype=torch.bool)
    kept[3, 1, 2] = True
    side = min(height, width)
    crop = PatchArea((width - side) / 2, (height - side) / 2, side, side, width, height)
    sheet = draw_sheet(frames(t, height, width), layer_states(keep_trace(kept, False)), crop, "clip.mp4")
    assert sheet.columns == list(range(t)) and len(sheet.cells) == 2
    for column, (left, top, cell_width, cell_height) in enumerate(sheet.cells[1]):
        scaled = crop.scaled(cell_width, cell_height)
        for y in range(h):
            for x in range(w):
                box = patch_box(scaled, y, x, h, w)
                pixel = sheet.image[top + int((box[1] + box[3]) / 2), left + int((box[0] + box[2]) / 2)]
                assert (pixel.min() > 240) == ((column, y, x) == (3, 1, 2))


@pytest.mark.parametrize("height,width", [(640, 40), (40, 640)])
def test_narrow_and_flat_videos_leave_room_for_the_words(height, width):
    labels = [f"frame {1000 + i} · 33.{i:02} s" for i in range(4)]
    shape = PatchArea.whole(width, height)
    states = layer_states(keep_trace(torch.ones(4, 2, 2, dtype=torch.bool), False))
    sheet = draw_sheet(frames(4, height, width), states, shape, "clip.mp4", frame_labels=labels)
    lefts, tops = [cell[0] for cell in sheet.cells[0]], [row[0][1] for row in sheet.cells]
    assert min(b - a for a, b in pairwise(lefts)) >= max(font(13).getlength(label) for label in labels)
    assert min(b - a for a, b in pairwise(tops)) >= 4 * 18  # four lines beside each row
    assert max(left + cell_width for left, _, cell_width, _ in sheet.cells[0]) < sheet.image.shape[1]


def test_more_frames_than_columns_are_spread_from_first_to_last():
    sheet = draw_sheet(frames(96, 20, 30), layer_states(dense_trace(96, 2, 2)), PatchArea.whole(30, 20), "x", columns=8)
    assert len(sheet.columns) == 8 and sheet.columns[0] == 0 and sheet.columns[-1] == 95


def test_patches_that_span_frames_serve_each_of_them():
    """Models with two-frame patches have half as many trace frames as input frames."""
    kept = torch.zeros(2, 2, 2, dtype=torch.bool)
    kept[1] = True
    sheet = draw_sheet(
        frames(4, 40, 40), layer_states(keep_trace(kept, False), tubelet_size=2), PatchArea.whole(40, 40), "x"
    )
    lit = [sheet.image[top + h // 3, left + w // 3].min() > 240 for left, top, w, h in sheet.cells[1]]
    assert lit == [False, False, True, True]


@pytest.mark.parametrize("count", [1, 3, 4])
def test_the_legend_stays_inside_the_sheet(count):
    kept = torch.rand(count, 4, 4, generator=torch.Generator().manual_seed(0)) < 0.5
    states = [*layer_states(keep_trace(kept, True)), *layer_states(semantic_trace(count, 4, 4, (1, 2, 2)))]
    sheet = draw_sheet(frames(count, 40, 60), states, PatchArea(10, 0, 40, 40, 60, 40), "x", predictions=[("a", 0.5)])
    assert (sheet.image[:, -20:] == 255).all() and (sheet.image[-6:] == 255).all()
    assert not (sheet.image[-40:-10] == 255).all()


def test_nothing_is_drawn_beyond_the_margins_and_the_file_is_the_image(tmp_path):
    names = [("a very long class name " * 4, 0.9), ("b", 0.1)]
    states = layer_states(semantic_trace(2, 4, 4, (2, 2, 2)))
    sheet = draw_sheet(frames(2, 40, 60), states, PatchArea.whole(60, 40), "long name " * 40, "sub " * 100, names)
    assert (sheet.image[:, -10:] == 255).all() and (sheet.image[:, :10] == 255).all()
    assert (sheet.image[-6:] == 255).all()
    sheet.save(tmp_path / "sheet.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "sheet.png")), sheet.image)
    assert [p.name for p in tmp_path.iterdir()] == ["sheet.png"]
