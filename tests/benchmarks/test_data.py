"""`python -m stvideo.benchmark data`: every table, on small videos; what it says follows from what it measured."""

import json

import numpy as np
import pytest
import torch

from stvideo import benchmark
from stvideo.benchmarks import data, readers
from stvideo.benchmarks.data_passes import Clips, own_readers
from stvideo.benchmarks.timing import Timing
from stvideo.core.errors import StvideoError
from stvideo.data.clips.sampling import stride_indices
from stvideo.data.clips.transforms import TrainTransform
from stvideo.settings.config import DataConfig
from tests.video_files import encode_video, frame_numbers, numbered_frames

SMALL = ["data.num_frames=4", "data.stride=8", "data.img_size=32", "data.short_side=[32,40]", "data.batch_size=2"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for number in range(3):
        encode_video(folder / f"{number}.mp4", numbered_frames(60, 48, 64, seed=number), b_frames=2, gop=60)
    (folder / "train.txt").write_text("".join(f"{number}.mp4 0\n" for number in range(3)))
    return folder


def run(root, tmp_path, *more):
    arguments = [f"data.root={root}", *SMALL, "videos=2", "rounds=1", f"output={tmp_path / 'out'}", *more]
    assert benchmark.main(["data", *arguments]) == 0
    return json.loads((tmp_path / "out" / "data.json").read_text())


def test_every_table_is_there(root, tmp_path, capsys):
    report = run(root, tmp_path, "workers=0,1", "short_side=32", "keyframes=4")
    sections = {section["key"]: section["rows"] for section in report["sections"]}
    assert list(sections) == ["raw-stages", "raw-readers", "resized-stages", "resized-readers", "loader"]
    stages = ["open", "seek and decode", "transform", "collate", "all"]
    names = [row["name"] for row in sections["raw-readers"]]
    assert names[:2] == ["stvideo (pyav)", "stvideo, pyav"]
    assert names[-2:] == ["PyAV by hand", "PyTorchVideo"]
    for key in ("raw", "resized"):
        assert [row["name"] for row in sections[f"{key}-stages"]] == stages
        assert sum(row["share"] for row in sections[f"{key}-stages"][:-1]) == pytest.approx(1, abs=0.01)
        for row in sections[f"{key}-readers"]:
            assert row["failure"] is None
            assert row["clips_per_second"] > 0
            assert (row["ahead"] is None) == row["name"].startswith("stvideo (")
    assert [row["workers"] for row in sections["loader"]] == [0, 1]
    assert all(row["clips_per_second"] > 0 for row in sections["loader"])
    notes = " ".join(report["notes"])
    for words in ("best of decord and PyAV by hand", "LabeledVideoDataset", "resizing makes reading", "the limit is"):
        assert words in notes
    printed = capsys.readouterr().out
    assert "stvideo is" in printed
    assert "1 loader process " in printed


def test_a_reader_that_fails_is_told_and_left_out(root, tmp_path):
    (tmp_path / "clips").mkdir()
    for number in range(2):
        (tmp_path / "clips" / f"{number}.mp4").symlink_to(root / f"{number}.mp4")
    encode_video(tmp_path / "clips" / "2.mp4", numbered_frames(60, 48, 64), codec="libsvtav1", options={"preset": "12"})
    (tmp_path / "clips" / "train.txt").write_text("0.mp4 0\n2.mp4 0\n")
    report = run(tmp_path / "clips", tmp_path, "workers=0", "resize=false")
    rows = {row["name"]: row for row in report["sections"][1]["rows"]}
    if "decord by hand" in rows:  # decord cannot open AV1
        assert rows["decord by hand"]["failure"].startswith("fails: ")
        assert "seconds" not in rows["decord by hand"]
        assert rows["stvideo, decord (decord, pyav)"]["failure"] is None
    assert rows["stvideo (pyav)"]["failure"] is None


@pytest.mark.parametrize("reader", [readers.by_pyav, readers.by_decord])
def test_the_others_read_the_same_frames_as_stvideo(root, reader):
    if reader is readers.by_decord:
        pytest.importorskip("decord")
    transform = TrainTransform(48, short_side=(48, 48), flip=False)
    clip = reader(4, 8, transform)(root / "1.mp4", np.random.default_rng(5))
    expected = stride_indices(60, 30, 4, 8, position=float(np.random.default_rng(5).random()))
    texture = numbered_frames(60, 48, 64, seed=1)[expected]
    assert clip.shape == (3, 4, 48, 48)
    left = [
        float(
            (clip[:, :, 12:].float().permute(1, 2, 3, 0) - torch.from_numpy(texture[:, 12:, at : at + 48])).abs().mean()
        )
        for at in range(17)
    ]
    assert min(left) < 12  # at one place of the crop it is these frames
    assert frame_numbers(texture) == expected.tolist()


def test_pytorchvideo_gives_clips_of_the_same_shape(root):
    clips = readers.by_pytorchvideo(4, 8, 32, (32, 40))([root / "0.mp4", root / "1.mp4"])
    assert [tuple(clip.shape) for clip in clips] == [(3, 4, 32, 32)] * 2


def test_readers_take_another_clip_in_every_round(root):
    settings = DataConfig(root=str(root), num_frames=4, stride=2, img_size=32, short_side=[32, 40])
    run_once = own_readers(Clips([root / "0.mp4"], settings))[0].run
    assert not torch.equal(run_once()[0]["video"], run_once()[0]["video"])


def test_ratios_are_medians_of_rounds():
    timings = {
        "stvideo": Timing(rounds=[1.0, 2.0, 1.0]),
        "decord-by-hand": Timing(rounds=[2.0, 2.0, 9.0]),
        "pyav-by-hand": Timing(rounds=[3.0, 1.0, 3.0]),
    }
    (note,) = data._comparison(timings)
    assert "2.00x (0.50-3.00)" in note  # per round the better of the two: 2, 1, 3


@pytest.mark.parametrize(
    ("largest", "doing", "words"),
    [
        ("seek and decode", "decoding", "resize.py"),
        ("transform", "scaling and cropping", "rand_augment"),
        ("open", "opening", "clips_per_video"),
    ],
)
def test_the_advice_follows_the_largest_stage(largest, doing, words):
    stages = {name: {"share": 0.7 if name == largest else 0.1} for name in ("open", "seek and decode", "transform")}
    stages["all"] = {"clips_per_second": 10.0}
    loader = [{"name": "1 loader process", "clips_per_second": 9.0}]
    line = data.advice(stages, loader, resized=True)
    assert f"the limit is {doing}, 70% of the time" in line
    assert words in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["videos=0"], "videos=0"),
        (["vidoes=3"], "did you mean 'videos'"),
        (["data.rot=x"], "data.rot"),
        (["a.yaml", "b.yaml"], "one configuration file"),
        (["workers=-1"], "workers=-1"),
        (["data.root=/nowhere"], "no such folder"),
    ],
)
def test_mistakes_are_one_line(arguments, message):
    with pytest.raises(StvideoError, match=message) as raised:
        benchmark.main(["data", *arguments])
    assert "\n" not in str(raised.value)
