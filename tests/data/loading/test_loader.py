"""What training and evaluation read: the same samples whatever the number of workers or processes, resumed exactly."""

import time

import numpy as np
import pytest
import torch

from stvideo.core.errors import StvideoError
from stvideo.data.loading import datasets
from stvideo.data.loading.datasets import build_dataset
from tests.data.tiny_loader import TRAIN, VAL, config, epochs, ids, load, same
from tests.video_files import encode_video, frame_numbers, numbered_frames


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


def test_waiting_is_counted_and_computing_is_not(root, monkeypatch):
    original = datasets.open_video
    monkeypatch.setattr(datasets, "open_video", lambda path, *rest: time.sleep(0.02) or original(path, *rest))
    loader = load(root, batch_size=2)
    started = time.perf_counter()
    for _ in loader:
        time.sleep(0.02)  # computing
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
    together = dataset[datasets.Request(1, 4, 0, 3)].samples
    for view in range(3):
        alone = dataset[datasets.Request(1, 4, view, 1)].samples
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


def test_large_videos_are_scaled_while_decoding(tmp_path):
    frames = numbered_frames(12, 240, 360)
    encode_video(tmp_path / "big.mp4", frames)
    (tmp_path / "val.txt").write_text("big.mp4 0\n")
    small = build_dataset(config(tmp_path, img_size=48), "val")[0]["video"]
    center = torch.from_numpy(frames[:, :, 60:300]).permute(0, 3, 1, 2).float()
    expected = torch.nn.functional.interpolate(center, (48, 48), mode="bilinear", antialias=True)
    chosen = np.linspace(0, 15, 4).astype(int).clip(max=11)
    assert (small.permute(1, 0, 2, 3).float() - expected[chosen]).abs().mean() < 14
