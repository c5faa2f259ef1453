"""What the loader does with unreadable videos, workers that die or hang, and settings that cannot be."""

import logging
import subprocess
import sys
import time

import pytest

from stvideo.core.errors import StvideoError
from stvideo.data.loading.datasets import build_dataset
from stvideo.data.video import video as video_module
from stvideo.data.video.decode import UnreadableVideo
from tests.data.tiny_loader import config, epochs, ids, load, same

# --- unreadable videos ---------------------------------------------------------------------------------------------


@pytest.fixture
def spoiled(tmp_path, root):
    """The training videos with 3 of 14 spoiled in different ways."""
    for path in (root / "train").iterdir():
        (tmp_path / "train").mkdir(exist_ok=True)
        (tmp_path / "train" / path.name).symlink_to(path)
    for number, content in ((2, b""), (5, b"<html>"), (11, None)):
        path = tmp_path / "train" / f"{number:02d}.mp4"
        path.unlink()
        if content is not None:
            path.write_bytes(content)
    (tmp_path / "train.txt").write_text((root / "train.txt").read_text())
    return tmp_path


@pytest.mark.parametrize("workers", [0, 2])
def test_training_goes_on_with_other_videos_and_names_each_bad_one_once(spoiled, root, workers, caplog):
    loader = load(spoiled, batch_size=2, workers=workers, max_unreadable=0.3)
    with caplog.at_level(logging.WARNING, "stvideo.data"):
        batches = epochs(loader, 0, 1)
    assert len(batches) == 2 * 7
    assert {2, 5, 11}.isdisjoint(ids(batches))
    assert sum(int(batch["substituted"].sum()) for batch in batches) == 2 * 3
    assert all(batch["label"].tolist() == [i % 3 for i in batch["index"].tolist()] for batch in batches)
    assert loader.unreadable.keys() == {2, 5, 11}
    for name, reason in (("02.mp4", "empty"), ("05.mp4", "web page"), ("11.mp4", "no such file")):
        lines = [record.getMessage() for record in caplog.records if name in record.getMessage()]
        assert len(lines) == 1
        assert reason in lines[0]
    # the same substitutes whatever read them
    same(batches, epochs(load(spoiled, batch_size=2, workers=0, max_unreadable=0.3), 0, 1))


def test_training_stops_above_the_allowed_share(spoiled):
    loader = load(spoiled, batch_size=2, max_unreadable=0.15)
    with pytest.raises(StvideoError, match=r"3 of 14 .*data\.max_unreadable=0\.15.*\.mp4"):
        epochs(loader, 0, 1)


def test_training_stops_when_nothing_is_readable(tmp_path):
    for number in range(4):
        (tmp_path / f"{number}.mp4").write_bytes(b"")
    (tmp_path / "train.txt").write_text("".join(f"{number}.mp4 0\n" for number in range(4)))
    with pytest.raises(StvideoError, match="unreadable"):
        list(load(tmp_path, batch_size=2, max_unreadable=1.0))


@pytest.mark.parametrize("workers", [0, 1])
def test_evaluation_never_substitutes(spoiled, workers):
    loader = load(spoiled, "val", 2, workers, val="train.txt")
    message = ""
    try:
        list(loader)
    except UnreadableVideo as error:  # pytest.raises would keep the loader, and with it the workers, alive
        message = str(error)
    assert "02.mp4" in message
    assert "empty" in message
    assert "\n" not in message


DEADLY = """
import os, sys
from stvideo.settings.schema import DataConfig
from stvideo.data.loading import datasets, loader
from stvideo.core.errors import StvideoError

original = datasets.open_video
def deadly(path, *rest):
    if path.name == "03.mp4":
        os._exit(1)
    return original(path, *rest)
datasets.open_video = deadly  # inherited by the forked worker
dataset = datasets.build_dataset(DataConfig(root=sys.argv[1], num_frames=4, img_size=32, short_side=[32, 40]), "val")
batches = loader.build_loader(dataset, batch_size=1, workers=1)
try:
    for batch in batches:
        pass
except StvideoError as error:
    print(error, flush=True)
    os._exit(7)
except RuntimeError as error:  # torch's signal handler raises wherever the process happens to be
    print(batches.explain(error), flush=True)
    os._exit(7)
"""


def test_a_dying_worker_names_the_file(root):
    # In a process of its own: torch's handler goes on raising in whatever the process does next.
    done = subprocess.run([sys.executable, "-c", DEADLY, str(root)], capture_output=True, text=True, timeout=500)
    assert done.returncode == 7, done.stderr
    assert "worker died" in done.stdout
    assert "03.mp4" in done.stdout


HANGING = """
import multiprocessing, os, sys, time
from stvideo.settings.schema import DataConfig
from stvideo.data.loading import datasets, loader
from stvideo.core.errors import StvideoError

original = datasets.open_video
def open_video(path, *rest):
    time.sleep(3600 if path.name == sys.argv[2] else 1.0)
    return original(path, *rest)
datasets.open_video = open_video  # inherited by the forked worker
dataset = datasets.build_dataset(DataConfig(root=sys.argv[1], num_frames=4, img_size=32, short_side=[32, 40]), "val")
batches = loader.build_loader(dataset, batch_size=7, workers=1)
batches.data_loader.timeout = 6.0
try:
    print([batch["index"].tolist() for batch in batches], flush=True)
except StvideoError as error:
    print(error, flush=True)
for worker in multiprocessing.active_children():
    worker.kill()
os._exit(0)
"""


@pytest.mark.parametrize("hanging", ["03.mp4", "none"])
def test_a_worker_that_hangs_is_given_up_on_but_not_one_that_is_slow(root, hanging):
    done = subprocess.run(
        [sys.executable, "-c", HANGING, str(root), hanging], capture_output=True, text=True, timeout=500, check=True
    )
    if hanging == "none":  # a batch takes longer than the time-out, but no video of it does
        assert done.stdout.strip() == "[[0, 1, 2, 3, 4, 5, 6]]"
    else:
        assert "gives no batch in time" in done.stdout
        assert "val/03.mp4" in done.stdout


@pytest.mark.parametrize("workers", [0, 1])
def test_a_video_whose_decoding_hangs_is_left_out_and_named(root, workers, monkeypatch, caplog):
    original = video_module.PyavReader
    monkeypatch.setattr(video_module, "GRACE", 0.2)

    def reader(path, *rest):
        if path.name == "05.mp4":
            time.sleep(3600)
        return original(path, *rest)

    monkeypatch.setattr(video_module, "PyavReader", reader)  # inherited by the forked worker
    loader = load(root, batch_size=7, workers=workers, max_unreadable=0.1, timeout=4.0)
    with caplog.at_level(logging.WARNING, "stvideo.data"):
        batches = list(loader)
    assert len(batches) == 2
    assert loader.unreadable.keys() == {5}
    assert "05.mp4" in caplog.text
    assert "did not finish in 4 s (data.timeout)" in caplog.text


# --- settings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"root": ""}, r"data\.root is not set"),
        ({"root": "/nowhere/at/all"}, r"data\.root=/nowhere/at/all: no such folder"),
        ({"train": "gone.txt"}, r"data\.train=gone\.txt"),
        ({"classes": "gone.txt"}, r"data\.classes=gone\.txt"),
        ({"num_frames": 0}, r"data\.num_frames=0"),
        ({"stride": -1}, r"data\.stride=-1"),
        ({"decoder": "decrod"}, r"data\.decoder=decrod.*did you mean 'decord'"),
        ({"color_order": "grb"}, r"data\.color_order=grb"),
        ({"sampling": "uniform"}, r"data\.sampling: .*'uniform'"),
        ({"max_unreadable": 2.0}, r"data\.max_unreadable=2"),
        ({"clips_per_video": 0}, r"data\.clips_per_video=0"),
    ],
)
def test_wrong_settings_are_named(root, changes, message):
    with pytest.raises(StvideoError, match=message):
        build_dataset(config(**{"root": root, **changes}), "train")


def test_an_empty_root_is_named(tmp_path):
    with pytest.raises(StvideoError, match="empty"):
        build_dataset(config(tmp_path), "train")


def test_a_wrong_root_is_noticed_at_once(tmp_path, root):
    (tmp_path / "something").mkdir()
    (tmp_path / "train.txt").write_text((root / "train.txt").read_text())
    with pytest.raises(StvideoError, match=r"none of 14 videos.*is data\.root right"):
        build_dataset(config(tmp_path), "train")


@pytest.mark.parametrize(
    ("batch_size", "workers", "message"), [(0, 0, "batch_size=0"), (4, -1, "workers=-1"), (15, 0, "lower")]
)
def test_impossible_loaders_are_refused(root, batch_size, workers, message):
    with pytest.raises(StvideoError, match=message):
        load(root, batch_size=batch_size, workers=workers)
