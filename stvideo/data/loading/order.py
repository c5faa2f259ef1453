"""Which samples come when, on every process: pure functions of the seed, the epoch and the place in it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from stvideo.core.errors import StvideoError
from stvideo.data.loading.datasets import Request


class TrainSampler(Sampler[list[Request]]):
    """Shuffled batches of equal number and size on every rank.

    The order of an epoch follows from (seed, epoch). ``offset`` counts the videos that all ranks together have used of
    it, so a run can go on with another number of processes. What does not fill a global batch is left out.
    """

    def __init__(
        self, num_videos: int, clips_per_video: int, batch_size: int, seed: int, rank: int, world_size: int
    ) -> None:
        if batch_size % clips_per_video:
            raise StvideoError(
                f"data.batch_size={batch_size} is not a multiple of data.clips_per_video={clips_per_video}"
            )
        self.num_videos, self.clips_per_video = num_videos, clips_per_video
        self.videos_per_batch = batch_size // clips_per_video
        self.global_batch = self.videos_per_batch * world_size
        if num_videos < self.global_batch:
            raise StvideoError(
                f"{num_videos} training videos do not fill one batch of {self.global_batch} "
                f"({self.videos_per_batch} videos on each of {world_size} processes): lower data.batch_size"
            )
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.epoch, self.offset = 0, 0

    def __len__(self) -> int:
        """Batches of a whole epoch on every rank."""
        return self.num_videos // self.global_batch

    @property
    def batches_left(self) -> int:
        return (self.num_videos - self.offset) // self.global_batch

    def __iter__(self) -> Iterator[list[Request]]:
        epoch, first, batches = self.epoch, self.offset, self.batches_left
        order = np.random.default_rng((self.seed, epoch)).permutation(self.num_videos)
        for number in range(batches):
            chosen = order[first + number * self.global_batch :][: self.global_batch][self.rank :: self.world_size]
            yield [Request(epoch, int(video), 0, self.clips_per_video) for video in chosen]


class TestSampler(Sampler[list[Request]]):
    """Every view of every video once over all ranks; rank r takes videos r, r + world_size, ..."""

    __test__ = False  # not a pytest class

    def __init__(self, num_videos: int, views_per_video: int, batch_size: int, rank: int, world_size: int) -> None:
        self.videos = range(rank, num_videos, world_size)
        self.views_per_video, self.batch_size = views_per_video, batch_size
        self.epoch, self.offset = 0, 0

    def __len__(self) -> int:
        return -(-len(self.videos) * self.views_per_video // self.batch_size)

    @property
    def batches_left(self) -> int:
        return len(self)

    def __iter__(self) -> Iterator[list[Request]]:
        batch: list[Request] = []
        room = self.batch_size
        for video in self.videos:
            view = 0
            while view < self.views_per_video:
                views = min(room, self.views_per_video - view)
                batch.append(Request(self.epoch, video, view, views))
                view, room = view + views, room - views
                if room == 0:
                    yield batch
                    batch, room = [], self.batch_size
        if batch:
            yield batch
