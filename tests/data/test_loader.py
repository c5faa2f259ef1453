"""What training and evaluation read: the same samples whatever the number of workers or processes, resumed exactly."""

import logging
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from stvideo.config import DataConfig
from stvideo.data import datasets, decode
from stvideo.data.datasets import build_dataset
from stvideo.data.decode import UnreadableVideo
from stvideo.data.loader import Loader, build_loader
from stvideo.errors import StvideoError
from tests.video_files import encode_video, frame_numbers, numbered_frames

TRAIN, VAL = 14, 7


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """14 training and 7 validation videos of 3 classes; every one has pictures of its own."""
    folder = tmp_path_factory.mktemp("videos")
    for split, count in (("train", TRAIN), ("val", VAL)):
        lines = []
        for number in range(count):
            name = f"{split}/{number:02d}.mp4"
            (folder / split).mkdir(exist_ok=True)
            frames = numbered_frames(24 + number, 48, 72, seed=number + 100 * (split == "val"))
            encode_video(folder / name, frames, b_frames=number % 3)
            lines.append(f"{name} {number % 3}\n")
        (folder / f"{split}.txt").write_text("".join(lines))
    return folder


def config(root, **changes):
    settings = {"num_frames": 4, "stride": 4, "img_size": 32, "short_side": [32, 40], "timeout": 300.0}
    return DataConfig(root=str(root), **{**settings, **changes})


def load(root, split="train", batch_size=4, workers=0, seed=0, rank=0, world_size=1, views="1x1", **changes) -> Loader:
    dataset = build_dataset(config(root, **changes), split, views, seed)
    return build_loader(dataset, batch_size, workers, seed, rank, world_size)


def epochs(loader, *numbers):
    """All batches of the given epochs."""
    batches = []
    for number in numbers:
        loader.set_epoch(number)
        batches += list(loader)
    return batches


def same(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def ids(batches):
    return [int(number) for batch in batches for number in batch["index"]]


def test_a_batch_is_what_the_model_and_the_metrics_need(root):
    loader = load(root)
    assert len(loader) == TRAIN // 4
    batch = next(iter(loader))
    assert batch["video"].shape == (4, 3, 4, 32, 32)
    assert batch["video"].dtype == torch.uint8
    assert all(batch[name].dtype == torch.int64 and batch[name].shape == (4,) for name in ("label", "index", "view"))
    assert batch["substituted"].tolist() == [False] * 4
    assert batch["label"].tolist() == [number % 3 for number in batch["index"].tolist()]
    assert loader.wait_seconds > 0


def test_batches_do_not_depend_on_the_number_of_workers(root):
    augmented = {"color_jitter": 0.4, "rand_augment": "m7-n2", "random_erasing": 0.5}
    same(epochs(load(root, workers=0, **augmented), 0, 1), epochs(load(root, workers=2, **augmented), 0, 1))


def test_a_sample_follows_from_seed_epoch_and_number(root):
    dataset = build_dataset(config(root), "train", seed=3)
    again = build_dataset(config(root), "train", seed=3)
    other = build_dataset(config(root), "train", seed=4)
    first = dataset[1, 5]["video"]
    dataset[1, 6], again[7]  # whatever was read before
    assert torch.equal(first, again[1, 5]["video"])
    assert not torch.equal(first, other[1, 5]["video"])
    assert not torch.equal(first, dataset[2, 5]["video"])
    with pytest.raises(IndexError):
        dataset[TRAIN]


def test_every_epoch_has_an_order_of_its_own_without_repeats(root):
    loader = load(root)
    orders = [ids(epochs(loader, number)) for number in range(3)]
    assert len({tuple(order) for order in orders}) == 3
    for order in orders:
        assert len(set(order)) == len(order) == 12


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_an_epoch_equally(root, world_size):
    loaders = [load(root, batch_size=2, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert {len(loader) for loader in loaders} == {TRAIN // (2 * world_size)}
    seen = [ids(epochs(loader, 4)) for loader in loaders]
    assert len({len(share) for share in seen}) == 1
    everything = [number for share in seen for number in share]
    assert len(set(everything)) == len(everything)
    # together they take what one process with the whole batch takes
    alone = ids(epochs(load(root, batch_size=2 * world_size), 4))
    assert set(everything) == set(alone)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world_size", [1, 2])
def test_a_resumed_run_reads_what_an_uninterrupted_one_reads(root, workers, world_size):
    for rank in range(world_size):
        make = {"batch_size": 2, "rank": rank, "world_size": world_size, "workers": workers}
        whole = epochs(load(root, **make), 0, 1, 2)
        first = load(root, **make)
        before, state = [], None
        for number, batch in enumerate(iterate(first)):
            before.append(batch)
            state = first.state_dict()
            if number == len(first) + 1:  # in the middle of the second epoch
                break
        second = load(root, **make)
        second.load_state_dict(state)
        assert second.epoch == 1
        assert second.batches_left == len(second) - 2
        after = list(second)
        assert second.state_dict() == {"epoch": 2, "offset": 0}
        after += epochs(second, 2)
        same(before + after, whole)


class HostCopier:
    """Stands where the copies to a GPU are made; counts them."""

    def __init__(self):
        self.started = self.finished = 0

    def start(self, batch):
        self.started += 1
        return {name: value.clone() for name, value in batch.items()}

    def finish(self, started):
        self.finished += 1
        return started


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_that_was_copied_ahead_but_not_used_comes_again(root, workers):
    make = {"batch_size": 2, "workers": workers}
    whole = epochs(load(root, **make), 0, 1)
    first = load(root, **make)
    first.copier = HostCopier()
    iterator = iterate(first)
    before = [next(iterator) for _ in range(len(first) + 2)]  # into the second epoch
    assert first.copier.started == first.copier.finished + 1 == len(before) + 1
    state = first.state_dict()
    iterator.close()
    assert first.state_dict() == state  # whoever stops here goes on from here
    second = load(root, **make)
    second.copier = HostCopier()
    second.load_state_dict(state)
    same(before + list(second), whole)
    assert second.copier.started == second.copier.finished == second.sampler.offset + len(whole) - len(before)


def test_waiting_counts_the_same_with_copies_ahead(root, monkeypatch):
    original = datasets.open_video
    monkeypatch.setattr(datasets, "open_video", lambda path, *rest: time.sleep(0.02) or original(path, *rest))
    for copier in (None, HostCopier()):
        loader = load(root, batch_size=2)
        loader.copier = copier
        started = time.perf_counter()
        for _ in loader:
            time.sleep(0.02)  # computing, which is no waiting
        elapsed = time.perf_counter() - started
        assert len(loader) * 2 * 0.02 <= loader.wait_seconds <= elapsed - len(loader) * 0.02


def iterate(loader):
    """Epoch after epoch, as a training loop does."""
    while True:
        epoch = loader.epoch
        yield from loader
        loader.set_epoch(epoch + 1)


def test_a_run_may_go_on_with_another_number_of_processes(root):
    whole = ids(epochs(load(root, batch_size=2), 0))
    first = load(root, batch_size=2)
    iterator = iter(first)
    used = [next(iterator) for _ in range(3)]
    later = []
    for rank in range(2):
        loader = load(root, batch_size=1, rank=rank, world_size=2)
        loader.load_state_dict(first.state_dict())
        later += ids(list(loader))
    assert sorted(ids(used) + later) == sorted(whole)


def test_a_position_outside_the_data_is_refused(root):
    with pytest.raises(StvideoError, match="does not fit 14 videos"):
        load(root).load_state_dict({"epoch": 0, "offset": 15})


def test_iterating_leaves_the_global_generator_alone(root):
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    list(load(root))
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("world_size", [2, 3])
def test_samples_do_not_depend_on_the_number_of_processes(root, world_size):
    def clips(batches):
        return {int(i): clip for batch in batches for i, clip in zip(batch["index"], batch["video"], strict=True)}

    augmented = {"color_jitter": 0.4, "rand_augment": "m7-n2", "random_erasing": 0.5}
    alone = clips(epochs(load(root, batch_size=2, **augmented), 3))
    for rank in range(world_size):
        share = clips(epochs(load(root, batch_size=2, rank=rank, world_size=world_size, **augmented), 3))
        assert all(torch.equal(clip, alone[number]) for number, clip in share.items() if number in alone)
        assert len(share.keys() & alone.keys()) > 1


def test_a_clip_does_not_depend_on_those_read_with_it(root):
    dataset = build_dataset(config(root, random_resized_crop=[0.3, 1.0]), "train")
    together = dataset[datasets.Request(1, 4, 0, 3)]
    for view in range(3):
        alone = dataset[datasets.Request(1, 4, view, 1)]
        assert torch.equal(alone[0]["video"], together[view]["video"])
    assert len({sample["video"].numpy().tobytes() for sample in together}) == 3


# --- several clips of one opened video -----------------------------------------------------------------------------


def test_several_clips_per_opened_video(root, monkeypatch):
    opened = []
    original = datasets.open_video
    monkeypatch.setattr(datasets, "open_video", lambda path, *rest: opened.append(path) or original(path, *rest))
    loader = load(root, batch_size=4, clips_per_video=2, random_resized_crop=[0.3, 1.0])
    batch = next(iter(loader))
    assert len(loader) == TRAIN // 2
    assert len(opened) == 2
    assert batch["view"].tolist() == [0, 1, 0, 1]
    assert batch["index"][0] == batch["index"][1]
    assert not torch.equal(batch["video"][0], batch["video"][1])


def test_clips_per_video_must_divide_the_batch(root):
    with pytest.raises(StvideoError, match=r"batch_size=4 is not a multiple of data\.clips_per_video=3"):
        load(root, clips_per_video=3)


# --- evaluation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 4, 5])
def test_evaluation_reads_every_view_once(root, world_size, batch_size):
    seen = []
    for rank in range(world_size):
        loader = load(root, "val", batch_size, rank=rank, world_size=world_size, views="2x3")
        batches = list(loader)
        assert len(batches) == len(loader)
        seen += [pair for b in batches for pair in zip(b["index"].tolist(), b["view"].tolist(), strict=True)]
    assert sorted(seen) == [(video, view) for video in range(VAL) for view in range(6)]


def test_views_are_the_same_however_they_are_batched(root):
    def by_view(loader):
        return {
            (int(i), int(v)): clip for b in loader for i, v, clip in zip(b["index"], b["view"], b["video"], strict=True)
        }

    first = by_view(load(root, "val", 4, views="2x3"))
    other = by_view(load(root, "val", 5, workers=2, views="2x3"))
    dataset = build_dataset(config(root), "val", "2x3")
    assert len(dataset) == VAL * 6
    assert dataset.expected == VAL
    for (video, view), clip in first.items():
        assert torch.equal(clip, other[video, view])
    assert torch.equal(dataset[2 * 6 + 5]["video"], first[2, 5])
    # all views of a video differ: 2 clips x 3 crops
    assert len({first[0, view].numpy().tobytes() for view in range(6)}) == 6


@pytest.mark.parametrize("sampling", ["stride", "segment"])
def test_every_view_shows_other_frames_or_another_part_of_them(tmp_path, sampling):
    encode_video(tmp_path / "a.mp4", numbered_frames(90, 48, 144))
    (tmp_path / "val.txt").write_text("a.mp4 0\n")
    dataset = build_dataset(config(tmp_path, sampling=sampling), "val", "3x3")
    views = [dataset[number]["video"] for number in range(9)]
    assert len({view.numpy().tobytes() for view in views}) == 9
    for clip in range(3):  # the three crops of a clip lie side by side along the longer side
        left, middle, right = (view.float() for view in views[3 * clip : 3 * clip + 3])
        assert min((left - middle).abs().mean(), (middle - right).abs().mean(), (left - right).abs().mean()) > 5


def test_training_and_evaluation_loaders_want_their_own_dataset(root):
    with pytest.raises(StvideoError, match="evaluation"):
        build_loader(build_dataset(config(root), "train"), 4, train=False)


def test_colour_order(root):
    rgb = build_dataset(config(root), "val")[3]["video"]
    bgr = build_dataset(config(root, color_order="bgr"), "val")[3]["video"]
    assert torch.equal(bgr, rgb.flip(0))
    assert not torch.equal(bgr, rgb)


def test_a_trimmed_entry_reads_only_its_part(tmp_path):
    encode_video(tmp_path / "long.mp4", numbered_frames(90, 96, 96), b_frames=2)
    (tmp_path / "val.txt").write_text("long.mp4 0 1.0 2.0\n")
    (tmp_path / "train.txt").write_text("long.mp4 0 1.0 2.0\n")
    settings = config(tmp_path, img_size=96, short_side=[96, 96], flip=False, sampling="segment", num_frames=6)
    for dataset in (build_dataset(settings, "val"), build_dataset(settings, "train", seed=2)):
        numbers = frame_numbers(dataset[0]["video"].permute(1, 2, 3, 0))
        assert all(30 <= number < 60 for number in numbers)
        assert sorted(numbers) == numbers
        assert numbers[0] < 36
        assert numbers[-1] > 50


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
from stvideo.config import DataConfig
from stvideo.data import datasets, loader
from stvideo.errors import StvideoError

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
from stvideo.config import DataConfig
from stvideo.data import datasets, loader
from stvideo.errors import StvideoError

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
    original = decode.PyavReader
    monkeypatch.setattr(decode, "GRACE", 0.2)

    def reader(path, *rest):
        if path.name == "05.mp4":
            time.sleep(3600)
        return original(path, *rest)

    monkeypatch.setattr(decode, "PyavReader", reader)  # inherited by the forked worker
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


def test_large_videos_are_scaled_while_decoding(tmp_path):
    frames = numbered_frames(12, 240, 360)
    encode_video(tmp_path / "big.mp4", frames)
    (tmp_path / "val.txt").write_text("big.mp4 0\n")
    small = build_dataset(config(tmp_path, img_size=48), "val")[0]["video"]
    center = torch.from_numpy(frames[:, :, 60:300]).permute(0, 3, 1, 2).float()
    expected = torch.nn.functional.interpolate(center, (48, 48), mode="bilinear", antialias=True)
    chosen = np.linspace(0, 15, 4).astype(int).clip(max=11)
    assert (small.permute(1, 0, 2, 3).float() - expected[chosen]).abs().mean() < 14
