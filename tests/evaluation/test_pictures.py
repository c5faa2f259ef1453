"""Pictures beside the numbers of an evaluation, from real files."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stvideo.core.errors import StvideoError
from stvideo.evaluation.pictures import write_evaluation_pictures
from tests.painted_videos import painted_frames, write_video


def test_files_and_the_frame_of_the_video_that_was_mistaken(tmp_path):
    paths = [write_video(tmp_path / f"{n}.mp4", painted_frames(3, 96, 64, (1, 1, 1))) for n in range(3)]
    red = [np.full((64, 96, 3), (230, 20, 20), np.uint8)] * 3
    paths[1] = write_video(tmp_path / "1.mp4", red)
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.1, 0.9]], np.float32)
    written = write_evaluation_pictures(tmp_path, scores, np.array([0, 0, 1]), ["a", "b"], paths.__getitem__, "run")
    assert [p.name for p in written] == ["confusion.png", "worst_classes.png"]
    sheet = np.asarray(Image.open(written[1]).convert("RGB")).astype(int)
    assert (np.abs(sheet - (230, 20, 20)).max(axis=-1) < 12).sum() > 5000
    # Without mistakes there is no sheet, and an old one does not stay.
    written = write_evaluation_pictures(tmp_path, scores, np.array([0, 1, 1]), ["a", "b"], paths.__getitem__)
    assert [p.name for p in written] == ["confusion.png"] and not (tmp_path / "worst_classes.png").exists()


def test_a_video_that_has_gone_is_left_out(tmp_path):
    scores = np.array([[0.2, 0.8]], np.float32)
    write_evaluation_pictures(tmp_path, scores, np.array([0]), ["a", "b"], lambda row: Path("gone.mp4"))
    assert (tmp_path / "worst_classes.png").exists()


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(StvideoError, match="cannot be written"):
        write_evaluation_pictures(
            tmp_path / "no", np.ones((1, 1), np.float32), np.array([0]), ["a"], lambda row: Path("x")
        )
