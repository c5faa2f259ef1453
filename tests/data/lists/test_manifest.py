"""What a dataset makes of a manifest: who is left out, who is read by PyAV, which frames are never asked for."""

import csv
import logging
from pathlib import Path

import numpy as np
import pytest

from stvideo.core.errors import StvideoError
from stvideo.data.lists.index import VideoIndex
from stvideo.data.lists.manifest import VideoRow, use_manifest
from stvideo.data.loading.datasets import build_dataset
from stvideo.data.loading.loader import build_loader
from stvideo.preparation.table import line_of
from stvideo.preparation.verification import verify
from stvideo.settings.schema import DataConfig
from tests.data_tools.damaged_files import encode, write_partial

SMALL = {"num_frames": 4, "stride": 8, "img_size": 32, "short_side": [32, 40]}


def write_manifest(path: Path, entries: list[VideoRow]) -> None:
    path.write_bytes(b"".join(line_of(row) for row in [VideoRow.columns(), *(entry.row() for entry in entries)]))


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """Two classes; of "right" only one video is usable, and that is damaged further on."""
    root = tmp_path_factory.mktemp("videos")
    for name in ("good", "changed"):
        encode(root / f"{name}.mp4")
    encode(root / "open.mp4", b_frames=3, open_gop=True)
    write_partial(root)
    (root / "empty.mp4").touch()
    (root / "page.mp4").write_text("<html>")
    names = {"good": 0, "open": 0, "changed": 0, "empty": 0, "partial": 1, "page": 2}
    (root / "train.txt").write_text("".join(f"{name}.mp4 {label}\n" for name, label in names.items()))
    (root / "val.txt").write_text("good.mp4 0\npage.mp4 2\n")
    (root / "classes.txt").write_text("left\nright\nup\n")
    verify(root, [f"{name}.mp4" for name in names], root / "manifest.csv", workers=1)
    encode(root / "changed.mp4", frames=30)
    return root


def test_unusable_videos_are_left_out_with_a_count(videos, caplog):
    with caplog.at_level(logging.WARNING, "stvideo.data"):
        dataset = build_dataset(DataConfig(root=str(videos), **SMALL), "train")
    assert dataset.video_index.paths() == ["good.mp4", "open.mp4", "changed.mp4", "partial.mp4"]
    assert dataset.video_index.labels.tolist() == [0, 0, 0, 1]
    assert (dataset.expected, dataset.listed) == (4, 6)
    text = "\n".join(record.getMessage() for record in caplog.records)
    assert f"left out 2 of 6 videos that {videos / 'manifest.csv'} calls unusable, e.g. empty.mp4" in text
    assert "class 'up' has no usable video left" in text


def test_evaluation_counts_them_as_missing(videos):
    dataset = build_dataset(DataConfig(root=str(videos), **SMALL), "val")
    assert (len(dataset), dataset.expected, dataset.listed) == (1, 1, 2)


def test_how_each_video_is_read(videos):
    dataset = build_dataset(DataConfig(root=str(videos), **SMALL), "train")
    good, wrong, changed, partial = (
        [dataset.checked.reading(number, dataset.path(number), decoder) for decoder in ("auto", "decord", "torchcodec")]
        for number in range(4)
    )
    assert good == [("auto", 40), ("decord", 40), ("torchcodec", 40)]
    assert wrong == [("pyav", 40), ("pyav", 40), ("torchcodec", 40)]
    assert changed == [("auto", None), ("decord", None), ("torchcodec", None)]
    assert [decoder for decoder, _ in partial] == ["pyav"] * 3 and 20 <= partial[0][1] < 40


@pytest.mark.parametrize("decoder", ["auto", "decord"])
def test_no_frame_behind_the_damage_is_asked_for(videos, decoder):
    config = DataConfig(root=str(videos), decoder=decoder, **SMALL)
    loader = build_loader(build_dataset(config, "train"), batch_size=4, workers=0)
    for epoch in range(6):
        loader.set_epoch(epoch)
        assert sum(batch["substituted"].sum().item() for batch in loader) == 0
    assert not loader.unreadable


def test_without_the_manifest_the_damage_is_met(videos, tmp_path):
    for name in ("partial.mp4", "train.txt", "classes.txt"):
        (tmp_path / name).write_bytes((videos / name).read_bytes())
    (tmp_path / "train.txt").write_text("partial.mp4 1\n")
    reading = build_dataset(DataConfig(root=str(tmp_path), **SMALL), "train")
    assert reading.checked is None and reading.listed == 1


def test_a_changed_file_is_told_once(videos, caplog):
    dataset = build_dataset(DataConfig(root=str(videos), **SMALL), "train")
    with caplog.at_level(logging.WARNING, "stvideo.data"):
        for epoch in range(3):
            assert dataset[epoch, 2]["video"].shape == (3, 4, 32, 32)
    messages = [record.getMessage() for record in caplog.records if "not as when" in record.getMessage()]
    assert len(messages) == 1 and "changed.mp4" in messages[0]


def test_an_unusable_file_that_was_replaced_is_used_again(tmp_path):
    encode(tmp_path / "a.mp4", frames=8)
    encode(tmp_path / "b.mp4", frames=8)
    entries = [VideoRow("a.mp4", "ok", frames=8, bytes=(tmp_path / "a.mp4").stat().st_size)]
    write_manifest(tmp_path / "m.csv", [*entries, VideoRow("b.mp4", "unusable", reason="the file is empty")])
    index = VideoIndex.build(["a.mp4", "b.mp4"], [0, 0], ["x"])
    chosen, checked = use_manifest(index, tmp_path, "m.csv")
    assert len(chosen) == 2 and checked.left_out == 0
    assert any("videos that it calls unusable are not as when" in note for note in chosen.notes)
    (tmp_path / "b.mp4").write_bytes(b"")
    chosen, checked = use_manifest(index, tmp_path, "m.csv")
    assert chosen.paths() == ["a.mp4"] and checked.left_out == 1


def test_a_manifest_that_does_not_fit_is_an_error(tmp_path):
    index = VideoIndex.build(["a.mp4", "b.mp4"], [0, 0], ["x"])
    path = tmp_path / "m.csv"

    def message() -> str:
        with pytest.raises(StvideoError) as caught:
            use_manifest(index, tmp_path, str(path))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert use_manifest(index, tmp_path, None) == (index, None)
    assert "no such file" in message()
    write_manifest(path, [VideoRow("other/a.mp4", "ok", frames=8)])
    assert "names none of the 2 videos, e.g. a.mp4" in message()
    write_manifest(path, [VideoRow("a.mp4", "unusable"), VideoRow("b.mp4", "unusable")])
    assert "calls all 2 videos unusable" in message()
    write_manifest(path, [])
    assert "knows no video" in message()
    path.write_text("path,label\na.mp4,1\n")
    assert "not a manifest" in message()
    path.write_text(",".join(VideoRow.columns()) + "\na.mp4,ok,many,0,pyav,\n")
    assert f"{path}:2: not a line of a manifest" in message()


def test_odd_names_later_lines_and_a_torn_end(tmp_path):
    names = ['my, "own" video.mp4', "b c.mp4", "d\udce9.mp4", "unknown.mp4"]
    rows = [VideoRow(name, "ok", frames=5 + number, bytes=1) for number, name in enumerate(names[:3])]
    rows.append(VideoRow("b c.mp4", "exact", frames=9, bytes=2, decoder="pyav", reason="decord errs, always"))
    path = tmp_path / "manifest.csv"
    write_manifest(path, rows)
    with path.open("ab") as file:
        file.write(b"torn.mp4,ok,1")
    chosen, checked = use_manifest(VideoIndex.build(names, [0] * 4, ["x"]), tmp_path, None)
    assert chosen.paths() == names
    assert any("does not know 1 of 4 videos, e.g. unknown.mp4" in note for note in chosen.notes)
    (tmp_path / "two").write_bytes(b"12")
    assert checked.reading(1, tmp_path / "two", "decord") == ("pyav", 9)
    assert checked.reading(3, tmp_path / "two", "decord") == ("decord", None)


def test_entries_survive_the_file(tmp_path):
    entry = VideoRow("a,b.mp4", "exact", frames=3, fps=29.97003, duration=1.5, decord="different", modified=10**18 + 1)
    path = tmp_path / "m.csv"
    write_manifest(path, [entry])

    with path.open(newline="") as file:
        assert VideoRow.from_row(list(csv.reader(file))[1]) == entry
    with pytest.raises(ValueError):
        VideoRow.from_row(["a"])


def test_large_manifests_match(tmp_path):
    count = 20_000
    names = [f"class {number % 7}/video_{number:06d}.mp4" for number in range(count)]
    order = np.random.default_rng(0).permutation(count)
    write_manifest(
        tmp_path / "manifest.csv",
        [VideoRow(names[n], "unusable" if n % 10 == 0 else "ok", frames=n + 1, bytes=n) for n in order],
    )
    chosen, checked = use_manifest(VideoIndex.build(names, range(count), ["x"] * count), tmp_path, None)
    kept = [number for number in range(count) if number % 10]
    assert chosen.labels.tolist() == kept and chosen.path(0) == names[1]
    assert checked.about[0].tolist() == [number + 1 for number in kept]
