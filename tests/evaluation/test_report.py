"""Pictures beside the numbers of an evaluation, from real files."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stvideo.core.errors import StvideoError
from stvideo.evaluation.metrics import Predictions
from stvideo.evaluation.report import as_table, write_pictures
from tests.painted_videos import painted_frames, write_video


def predictions(scores, truth):
    return Predictions(np.arange(len(truth)), np.array(truth), np.array(scores, np.float32))


def test_files_and_the_frame_of_the_video_that_was_mistaken(tmp_path):
    paths = [write_video(tmp_path / f"{n}.mp4", painted_frames(3, 96, 64, (1, 1, 1))) for n in range(3)]
    red = [np.full((64, 96, 3), (230, 20, 20), np.uint8)] * 3
    paths[1] = write_video(tmp_path / "1.mp4", red)
    scores = [[0.9, 0.1], [0.2, 0.8], [0.1, 0.9]]
    written = write_pictures(tmp_path, predictions(scores, [0, 0, 1]), ["a", "b"], paths.__getitem__, "run")
    assert [p.name for p in written] == ["confusion.png", "worst_classes.png"]
    sheet = np.asarray(Image.open(written[1]).convert("RGB")).astype(int)
    assert (np.abs(sheet - (230, 20, 20)).max(axis=-1) < 12).sum() > 5000
    # Without mistakes there is no sheet, and an old one does not stay.
    written = write_pictures(tmp_path, predictions(scores, [0, 1, 1]), ["a", "b"], paths.__getitem__, "run")
    assert [p.name for p in written] == ["confusion.png"] and not (tmp_path / "worst_classes.png").exists()


def test_a_video_that_has_gone_is_left_out(tmp_path):
    write_pictures(tmp_path, predictions([[0.2, 0.8]], [0]), ["a", "b"], lambda video: Path("gone.mp4"), "run")
    assert (tmp_path / "worst_classes.png").exists()


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(StvideoError, match="cannot be written"):
        write_pictures(tmp_path / "no", predictions([[1.0]], [0]), ["a"], lambda video: Path("x"), "run")


def test_a_table_of_text():
    assert as_table([["model", "top-1"], ["a", "98.1"]]) == "| model | top-1 |\n|-------|------:|\n| a     |  98.1 |"
