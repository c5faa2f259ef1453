"""Lists that take parts of long videos: only their frames are read, by every decoder, in training and in testing."""

import numpy as np
import pytest

from stvideo.core.errors import StvideoError
from stvideo.data.lists.listfiles import read_list
from stvideo.data.loading.datasets import build_dataset
from stvideo.data.video.decode import UnreadableVideo
from stvideo.data.video.decord import decord_problem
from stvideo.data.video.torchcodec import torchcodec_problem
from stvideo.settings.schema import DataConfig
from tests.video_files import encode_video, frame_numbers, numbered_frames

FRAMES, FPS = 120, 20


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("long")
    frames = numbered_frames(FRAMES, 96, 96)
    encode_video(folder / "long one.mp4", frames, fps=FPS, b_frames=2)
    encode_video(folder / "plain.mp4", frames, fps=FPS, b_frames=0)
    # the second half at half the speed: frame 60 is shown at 3 s, frame 61 at 3.1 s
    times = np.concatenate([np.arange(60) * 50, 3000 + np.arange(60) * 100]).tolist()
    encode_video(folder / "slower.mkv", frames, times=times)
    return folder


def config(root, **changes):
    settings = {"num_frames": 4, "stride": 4, "target_fps": FPS, "img_size": 96, "short_side": [96, 96], "flip": False}
    return DataConfig(root=str(root), train="list.txt", val="list.txt", **{**settings, **changes})


def all_frames(dataset):
    """Frame numbers of every sample, several epochs of it in training."""
    keys = [(epoch, number) for epoch in range(6 if dataset.train else 1) for number in range(len(dataset))]
    return [frame_numbers(dataset[key]["video"].permute(1, 2, 3, 0)) for key in keys]


@pytest.mark.parametrize("decoder", ["auto", "pyav", "decord", "torchcodec"])
@pytest.mark.parametrize("sampling", ["stride", "segment"])
def test_only_the_part_is_read(root, decoder, sampling):
    if decoder == "decord" and decord_problem():
        pytest.skip("decord is not installed here")
    if decoder == "torchcodec" and torchcodec_problem():
        pytest.skip(torchcodec_problem())
    (root / "list.txt").write_text('"long one.mp4" 0 2.0 3.5\n"plain.mp4" 1 2.0 3.5\n')
    settings = config(root, decoder=decoder, sampling=sampling)
    for dataset in (build_dataset(settings, "train", seed=3), build_dataset(settings, "val", "3x1")):
        clips = all_frames(dataset)
        assert all(40 <= number < 70 for clip in clips for number in clip)
        assert len({clip[0] for clip in clips}) > 2  # not all from one place
    if sampling == "stride":
        first, _, last = all_frames(build_dataset(settings, "val", "3x1"))[:3]
        assert (first[0], last[-1]) == (40, 69)  # test clips reach from the part's start to its end


def test_seconds_are_those_of_the_time_stamps(root):
    (root / "list.txt").write_text("slower.mkv,0,3.0,5.0\nslower.mkv,1,,0.5\nslower.mkv,2,8.0,\n")
    shown = all_frames(build_dataset(config(root, sampling="segment", num_frames=8), "val", "3x1"))
    assert {number for clip in shown[:3] for number in clip} <= set(range(60, 80))
    assert {number for clip in shown[3:6] for number in clip} <= set(range(10))
    assert {number for clip in shown[6:] for number in clip} <= set(range(110, 120))


def test_a_part_shorter_than_a_frame_is_one_frame(root):
    (root / "list.txt").write_text("plain.mp4 0 2.01 2.02\n")
    assert all_frames(build_dataset(config(root), "val")) == [[40] * 4]


def test_a_part_behind_the_end_is_named_not_guessed(root):
    (root / "list.txt").write_text("plain.mp4 0 5.0 9.0\n")
    assert all(number >= 100 for number in all_frames(build_dataset(config(root), "val"))[0])
    (root / "list.txt").write_text("plain.mp4 0 6.5 9.0\n")
    with pytest.raises(UnreadableVideo, match=r"plain\.mp4: .*it ends at 6\.00 s, the list takes it from 6\.5 s on"):
        build_dataset(config(root), "val")[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("'my videos/a b.mp4' 1\nc.mp4 0\n", [("my videos/a b.mp4", 1), ("c.mp4", 0)]),
        ("'my, videos/a b.mp4',1,0,2\n", [("my, videos/a b.mp4", 1)]),
        ('"my videos/a b.mp4"\t1\t0\t2.5\n', [("my videos/a b.mp4", 1)]),
        ('"say ""hi"".mp4" 1\n', [('say "hi".mp4', 1)]),
        ("a,b.mp4 1\n", [("a,b.mp4", 1)]),
        ('"#1.avi" 1\n', [("#1.avi", 1)]),
        ("'til.mp4 1\n", [("'til.mp4", 1)]),
        ("a.mp4\t1\t\t\n", [("a.mp4", 1)]),
    ],
)
def test_quotes_and_separators(tmp_path, text, expected):
    (tmp_path / "l.txt").write_text(text)
    index = read_list(tmp_path / "l.txt", tmp_path, ["x", "y"])
    assert [(index.path(i), int(index.labels[i])) for i in range(len(index))] == expected


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("a.mp4 0 1 nan", "cut from 1 s to nan s"),
        ("a.mp4 0 -1 2", "cut from -1 s to 2 s"),
        ("a\0b.mp4 0", "is no path"),
        ("C:\\..\\a.mp4 0", "outside the data root"),
    ],
)
def test_impossible_entries_are_named(tmp_path, entry, message):
    (tmp_path / "l.txt").write_text(f"ok.mp4 0\n{entry}\n")
    with pytest.raises(StvideoError, match=rf"l\.txt:2: .*{message}"):
        read_list(tmp_path / "l.txt", tmp_path)


def test_folders_and_files_that_are_mixed_up_are_named(root, tmp_path):
    (tmp_path / "clip.mp4").mkdir()
    (tmp_path / "list.txt").write_text("clip.mp4 0\n")
    with pytest.raises(UnreadableVideo, match=r"clip\.mp4: .*this is a folder"):
        build_dataset(config(tmp_path), "val")[0]
    with pytest.raises(StvideoError, match=r"data\.root=.*: this is a file"):
        build_dataset(config(root / "plain.mp4"), "val")
    (tmp_path / "names").mkdir()
    with pytest.raises(StvideoError, match="names: this is a folder, a file is expected"):
        build_dataset(config(tmp_path, classes="names"), "val")
