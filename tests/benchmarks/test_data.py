"""`python -m stvideo.benchmark data`: its tables on small videos; what it says follows from what it measured."""

import json

import numpy as np
import pytest
import torch

from stvideo import benchmark
from stvideo.benchmarks import data, readers
from stvideo.benchmarks.generated_clips import generate_clip
from stvideo.benchmarks.readers import Clips, own_reader
from stvideo.core.errors import StvideoError
from stvideo.data.clips.sampling import stride_indices
from stvideo.data.video.decode import open_video, read_frames
from stvideo.settings.schema import DataConfig
from tests.video_files import encode_video, frame_numbers, numbered_frames

SMALL = ["data.num_frames=4", "data.stride=8", "data.img_size=32", "data.short_side=[32,40]", "data.batch_size=2"]
TINY = "timesformer_tiny_patch16_224 embed_dim=32 depth=2 num_heads=2 img_size=32 num_frames=2 num_classes=3"


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
    threads = torch.get_num_threads()
    report = run(root, tmp_path, "workers=0,1")
    assert torch.get_num_threads() == threads
    sections = {section["key"]: section["rows"] for section in report["sections"]}
    assert list(sections) == ["readers", "loader"]
    names = [row["name"] for row in sections["readers"]]
    assert names[0] == "stvideo (pyav)"
    assert names[-2:] == ["PyAV by hand", "PyTorchVideo"]
    ours = sections["readers"][0]["rounds"][0]
    for row in sections["readers"]:
        assert row["failure"] is None
        assert row["clips_per_second"] == pytest.approx(1 / row["seconds"])
        assert (row["ahead"] is None) == row["name"].startswith("stvideo (")
        assert row["ahead"] is None or row["ahead"]["median"] == pytest.approx(row["rounds"][0] / ours)
    assert [row["workers"] for row in sections["loader"]] == [0, 1]
    assert all(row["clips_per_second"] > 0 for row in sections["loader"])
    hands = [row["rounds"][0] for row in sections["readers"] if row["name"].endswith("by hand")]
    (note,) = (note for note in report["notes"] if "best of decord and PyAV by hand" in note)
    assert f"{min(hands) / ours:.2f}x" in note
    printed = capsys.readouterr().out
    assert "stvideo is" in printed
    assert "1 loader process " in printed


@pytest.mark.parametrize("mode", ["train", "forward"])
def test_a_model_takes_the_batches(root, tmp_path, mode):
    report = run(root, tmp_path, "workers=0,1", "others=false", f"model={TINY}", f"mode={mode}")
    _, loader = report["sections"]
    for row in loader["rows"]:
        assert row["together"] > 0
        assert 0 <= row["waiting"] <= 1
        assert row["limit"].split(",")[0] in ("loader", "model", "cores")
    assert any("by itself takes" in note and mode in note for note in report["notes"])
    assert any("2 frames" in note and "32 pixels" in note for note in report["notes"])  # the model's


@pytest.mark.parametrize(
    ("workers", "loader", "together", "model", "words"),
    [
        (2, 10.0, 9.5, 25.0, "loader, 0.40 of what the model takes"),
        (2, 30.0, 9.5, 10.0, "model, the loader could feed 3.0 of it"),
        (2, 10.0, 5.0, 9.0, "cores"),
        (0, 10.0, 5.0, 9.0, "model, the loader could feed 1.1 of it"),  # they take turns
    ],
)
def test_what_limits(workers, loader, together, model, words):
    row = {"workers": workers, "clips_per_second": loader, "together": together}
    assert data.limit_of(row, model) == words


def test_generated_clips_are_what_was_asked_for(tmp_path):
    paths = [tmp_path / f"{seed}.mp4" for seed in range(2)]
    for seed, path in enumerate(paths):
        generate_clip(path, seed, size=(48, 64), frames=12)
    with open_video(paths[1]) as video:
        assert (video.num_frames, video.short_side, round(video.fps)) == (12, 48, 30)
    first, second = (read_frames(path, [0, 6, 11]).float() for path in paths)
    generate_clip(paths[0], 0, size=(48, 64), frames=12)
    again = read_frames(paths[0], [0, 6, 11]).float()  # x264 with B-frames does not write the same bytes every time
    assert (again - first).abs().mean() < 15 < (again - second).abs().mean()


def test_a_reader_that_fails_is_named_and_left_out(root, tmp_path):
    pytest.importorskip("decord")
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "0.mp4").symlink_to(root / "0.mp4")
    encode_video(tmp_path / "clips" / "2.mp4", numbered_frames(60, 48, 64), codec="libsvtav1", options={"preset": "12"})
    (tmp_path / "clips" / "train.txt").write_text("0.mp4 0\n2.mp4 0\n")
    report = run(tmp_path / "clips", tmp_path, "workers=0", "data.decoder=decord")
    rows = {row["name"]: row for row in report["sections"][0]["rows"]}
    assert rows["decord by hand"]["failure"].startswith("fails: ")  # it cannot open AV1
    assert "seconds" not in rows["decord by hand"]
    assert rows["stvideo (decord, pyav)"]["failure"] is None


@pytest.mark.parametrize("reader", [readers.by_pyav, readers.by_decord])
def test_the_others_read_the_same_frames_as_stvideo(root, reader):
    if reader is readers.by_decord:
        pytest.importorskip("decord")
    settings = DataConfig(num_frames=4, stride=8, img_size=48, short_side=[48, 48], flip=False)
    clip = reader(settings)(root / "1.mp4", np.random.default_rng(5))
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
    settings = DataConfig(num_frames=4, stride=8, img_size=32, short_side=[32, 40])
    clips = readers.by_pytorchvideo(settings)([root / "0.mp4", root / "1.mp4"])
    assert [tuple(clip.shape) for clip in clips] == [(3, 4, 32, 32)] * 2


def test_readers_take_another_clip_in_every_round(root):
    settings = DataConfig(root=str(root), num_frames=4, stride=2, img_size=32, short_side=[32, 40])
    (run_once,) = own_reader(Clips([root / "0.mp4"], settings)).values()
    assert not torch.equal(run_once()[0]["video"], run_once()[0]["video"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["videos=0"], "videos=0"),
        (["vidoes=3"], "did you mean 'videos'"),
        (["data.rot=x"], "data.rot"),
        (["a.yaml", "b.yaml"], "one configuration file"),
        (["workers=-1"], "workers=-1"),
        (["mode=backward"], "choose forward or train"),
        (["model=deit_tini_patch16_224"], "did you mean 'deit_tiny_patch16_224'"),
        (["model=deit_tiny_patch16_224 img_size=[32,48]"], "not square"),
        (["data.root=/nowhere"], "no such folder"),
    ],
)
def test_mistakes_are_one_line(arguments, message):
    with pytest.raises(StvideoError, match=message) as raised:
        benchmark.main(["data", *arguments])
    assert "\n" not in str(raised.value)
