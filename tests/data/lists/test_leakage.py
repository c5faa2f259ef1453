"""Sets that lie: validation videos in the training list, labels that say nothing, one video in two classes."""

import numpy as np
import pytest

from stvideo.data.lists.index import VideoIndex
from stvideo.data.lists.leakage import doubtful_labels, shared_videos, youtube_id
from stvideo.data.lists.manifest import Checked
from tests.tiny_runs import TINY, config_file, run_here, write_video


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("abseiling/-3B32lodo2M_000059_000069.mp4", "-3B32lodo2M"),
        ("abcdefghijk_000010_000020.mp4", "abcdefghijk"),
        ("A title [dQw4w9WgXcQ].webm", "dQw4w9WgXcQ"),
        ("dQw4w9WgXcQ.mp4", "dQw4w9WgXcQ"),
        ("train/Archery_001.mp4", None),
        ("train/video_00001.mp4", None),
        ("12345678901.mp4", None),
        ("v_ApplyEyeMakeup_g01_c01.avi", None),
    ],
)
def test_youtube_ids_are_told_from_other_names(path, expected):
    assert youtube_id(path) == expected


def index(paths, labels=None):
    return VideoIndex.build(paths, labels or [number % 2 for number in range(len(paths))], ["a", "b"])


def test_shared_videos_are_counted_by_how_they_are_known(tmp_path):
    train = index(["a/1.mp4", "b/dQw4w9WgXcQ_000010_000020.mp4", "a/3.mp4"])
    val = index(["a/1.mp4", "v/dQw4w9WgXcQ_000050_000060.mp4", "v/3.mp4"])
    said = shared_videos(train, val, tmp_path)
    assert said.startswith("2 of 3 videos of data.val are in data.train too (1 by path, 1 by YouTube id), e.g. a/1.mp4")
    assert shared_videos(train, index(["v/1.mp4", "v/2.mp4"]), tmp_path) is None


def test_copies_are_known_by_content_where_a_manifest_knows_their_size(tmp_path):
    for name, content in {"t/1": b"one", "t/2": b"two", "v/1": b"two", "v/2": b"six", "v/3": b"three"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    train, val = index(["t/1", "t/2"]), index(["v/1", "v/2", "v/3"])
    sizes = [np.array([(tmp_path / path).stat().st_size for path in part.paths()]) for part in (train, val)]
    checked = tuple(
        Checked(tmp_path, 0, np.stack([np.full(len(size), 9), size, np.zeros(len(size))])) for size in sizes
    )
    said = shared_videos(train, val, tmp_path, checked)
    assert said == "1 of 3 videos of data.val are in data.train too (1 by content), e.g. v/1 and t/2"
    assert shared_videos(train, val, tmp_path) is None


def test_labels_that_say_nothing_are_named():
    assert doubtful_labels(index(["x.mp4", "y.mp4", "z.mp4"])) == []
    assert doubtful_labels(index(["x.mp4", "y.mp4"], [1, 1])) == ["all 2 videos are of class 'b'"]
    paths = ["a/dQw4w9WgXcQ_000010_000020.mp4", "b/dQw4w9WgXcQ_000010_000020.mp4", "b/dQw4w9WgXcQ_000030_000040.mp4"]
    (said,) = doubtful_labels(index(paths, [0, 1, 1]))
    assert said.startswith("videos in two classes: 1, e.g. a/")


def test_training_says_it_once_or_stops(tmp_path, capsys):
    names = [f"{number}.mp4" for number in range(8)]
    for number, name in enumerate(names):
        write_video(tmp_path / name, ("left", "right")[number % 2], seed=number)
    (tmp_path / "train.txt").write_text("".join(f"{name} {number % 2}\n" for number, name in enumerate(names)))
    (tmp_path / "val.txt").write_text("0.mp4 0\n2.mp4 0\n")
    (tmp_path / "classes.txt").write_text("left\nright\nnever\n")
    arguments = [config_file(tmp_path), *TINY, f"data.root={tmp_path}", "data.train=train.txt", "data.val=val.txt"]
    arguments += [f"output={tmp_path / 'run'}", "train.epochs=1", "data.flip=false", "evaluate.during_training=1x1"]
    assert run_here("train", *arguments, "data.leakage=stop") == 2
    error = capsys.readouterr().err
    assert "2 of 2 videos of data.val are in data.train too (2 by path), e.g. 0.mp4 and 0.mp4" in error
    assert "data.leakage=warn" in error
    assert not run_here("train", *arguments)
    error = capsys.readouterr().err
    assert error.count("are in data.train too") == 1
    assert error.count("val: all 2 videos are of class 'left'") == 1
    assert error.count("train: class 'never' has no video") == 1
    assert run_here("train", *arguments, "data.leakage=maybe") == 2
    assert "choose from warn, stop" in capsys.readouterr().err
