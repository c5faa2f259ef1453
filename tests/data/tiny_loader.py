"""Loaders over small videos, as the tests of what training and evaluation read build them."""

import torch

from stvideo.data.loading.datasets import build_dataset
from stvideo.data.loading.loader import Loader, build_loader
from stvideo.settings.schema import DataConfig

TRAIN, VAL = 14, 7
"""How many videos the fixture ``root`` has for training and for validation."""


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
