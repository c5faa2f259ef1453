"""Clips -> batches, on every process, and where a run stands in its epoch.

    loader = build_loader(dataset, batch_size=8, workers=4, seed=0, rank=rank, world_size=world_size, train=True)
    loader.load_state_dict(saved)            # goes on with exactly the samples that would have come next
    for batch in loader: ...                 # the rest of this epoch
    loader.set_epoch(loader.epoch + 1)

Batches: ``video`` uint8 (B, 3, T, H, W), ``label``, ``index``, ``view`` int64 (B,), ``substituted`` bool (B,).
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import torch
from torch.utils.data import DataLoader

from stvideo.core.errors import StvideoError
from stvideo.core.messages import EVERY_PROCESS, logger
from stvideo.data.loading.datasets import Problem, Read, VideoDataset
from stvideo.data.loading.fork_server import start_fork_server
from stvideo.data.loading.order import TestSampler, TrainSampler
from stvideo.data.video.watchdog import MAX_WORKERS

Batch = dict[str, torch.Tensor]

MARGIN = 60.0  # seconds for what a worker does besides reading videos
DEATH_SECONDS = 5.0  # from a broken connection to the signal that tells of the worker's end; usually milliseconds


class Loader:
    """Iterate over batches, knowing where in the epoch it stands. See `build_loader`.

    Attributes:
        epoch: the epoch that is being, or will be, iterated.
        wait_seconds: time spent waiting for batches since the loader was made.
        unreadable: message of every video found unreadable by this process, by its number.
    """

    def __init__(
        self, dataset: VideoDataset, sampler: TrainSampler | TestSampler, data_loader: DataLoader[Any]
    ) -> None:
        self.dataset, self.sampler, self.data_loader = dataset, sampler, data_loader
        self.wait_seconds = 0.0
        self.unreadable: dict[int, str] = {}

    @property
    def epoch(self) -> int:
        return self.sampler.epoch

    def __len__(self) -> int:
        """Batches of a whole epoch on this process; `batches_left` says how many are still to come."""
        return len(self.sampler)

    @property
    def batches_left(self) -> int:
        """Batches of the current epoch that have not been taken yet."""
        return self.sampler.batches_left

    def set_epoch(self, epoch: int) -> None:
        """Start epoch ``epoch`` from its beginning; going on inside the current epoch is left as it is."""
        if epoch != self.sampler.epoch:
            self.sampler.epoch, self.sampler.offset = epoch, 0

    def state_dict(self) -> dict[str, int]:
        """Say where the next batch comes from: epoch, and videos used of it by all processes together."""
        return {"epoch": self.sampler.epoch, "offset": self.sampler.offset}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where `state_dict` was taken, possibly with another number of processes or workers."""
        epoch, offset = int(state["epoch"]), int(state["offset"])
        if epoch < 0 or not 0 <= offset <= self.dataset.expected:
            raise StvideoError(f"saved loader position {state} does not fit {self.dataset.expected} videos")
        self.sampler.epoch, self.sampler.offset = epoch, offset

    def __iter__(self) -> Iterator[Batch]:
        """Yield the rest of the epoch; after its last batch the loader is at the start of the next one."""
        epoch = self.sampler.epoch
        for batch in self._batches():
            if isinstance(self.sampler, TrainSampler):  # a batch counts as used when it is handed out, not before
                self.sampler.offset += self.sampler.global_batch
            if batch:  # nothing of it may be left where unreadable videos are left out
                yield batch
        if isinstance(self.sampler, TrainSampler) and self.sampler.epoch == epoch:
            self.sampler.epoch, self.sampler.offset = epoch + 1, 0

    def _batches(self) -> Iterator[Batch]:
        iterator: Iterator[Any] | None = None
        while True:
            before = time.perf_counter()
            try:
                iterator = iterator or _start(self.data_loader)
                batch, problems, errors = self._wait(iterator)
            except StopIteration:
                return
            except (RuntimeError, OSError, EOFError) as error:
                if isinstance(error, ConnectionError | EOFError):
                    # torch's handler of the worker's end raises wherever this process then is: wait for it here.
                    with contextlib.suppress(RuntimeError):
                        time.sleep(DEATH_SECONDS)
                raise self.explain(error) or error from error
            finally:
                self.wait_seconds += time.perf_counter() - before
            if errors:
                # No variable may hold it: workers of a loader that is in a cycle with its error end ten seconds late.
                raise errors.pop()
            self._note(problems)
            yield batch

    def _wait(self, iterator: Iterator[Any]) -> Any:
        """Wait for the next batch, as long as no worker spends too long on one video."""
        while True:
            try:
                return next(iterator)
            except RuntimeError as error:
                longest = self.dataset.reading_now.longest()
                if "timed out" not in str(error) or longest is None or longest > self.data_loader.timeout:
                    raise

    def _note(self, problems: list[Problem]) -> None:
        for video, message in problems:
            if video not in self.unreadable:
                self.unreadable[video] = message
                consequence = "training goes on with another video" if self.dataset.train else "left out"
                logger.warning(f"{message}; {consequence}", extra=EVERY_PROCESS)
        share = len(self.unreadable) / self.dataset.expected
        if self.dataset.train and problems and share > self.dataset.max_unreadable:
            raise StvideoError(
                f"{len(self.unreadable)} of {self.dataset.expected} training videos are unreadable, more than "
                f"data.max_unreadable={self.dataset.max_unreadable:g} allows; the last: {problems[-1][1]}"
            )

    def explain(self, error: Exception) -> StvideoError | None:
        """Name the files that a dead or hanging worker was decoding; None for any other error."""
        text = str(error)
        timed_out = "timed out" in text
        died = "exited unexpectedly" in text or "is killed by signal" in text
        # A worker that dies while it hands a batch over breaks the connection before its death is noticed.
        died = died or (self.data_loader.num_workers > 0 and isinstance(error, ConnectionError | EOFError))
        if not (timed_out or died):
            return None
        files = ", ".join(str(self.dataset.path(video)) for video in self.dataset.reading_now.videos()) or "none known"
        what = "gives no batch in time" if timed_out else "died"
        return StvideoError(f"a data worker {what}; being decoded at that moment: {files}")


def build_loader(
    dataset: VideoDataset,
    batch_size: int,
    workers: int = 0,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> Loader:
    """Build a `Loader` over ``dataset``.

    Training: shuffled by (seed, epoch), the same number of full batches on every rank. Evaluation: all views of all
    videos, each exactly once over all ranks, whose shares may differ by one video.

    Args:
        dataset: from `build_dataset`.
        batch_size: clips per process and batch.
        workers: loader processes; 0 reads in this one.
        seed: of the order.
        rank, world_size: this process among all.

    Raises:
        StvideoError: fewer training videos than one batch over all processes needs, or a size is wrong.
    """
    if batch_size < 1:
        raise StvideoError(f"data.batch_size={batch_size}: expected at least 1")
    if not 0 <= workers < MAX_WORKERS:
        raise StvideoError(f"data.workers={workers}: expected 0 (read in the training process) to {MAX_WORKERS - 1}")
    sampler: TrainSampler | TestSampler
    if dataset.train:
        sampler = TrainSampler(dataset.expected, dataset.num_clips, batch_size, seed, rank, world_size)
    else:
        sampler = TestSampler(dataset.expected, dataset.views_per_video, batch_size, rank, world_size)
    if workers:
        start_fork_server()
    # How many workers pay is for `data_wait_share` to say; torch warns as soon as there are more than cores.
    warnings.filterwarnings("ignore", message="This DataLoader will create")
    data_loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        # The video's own time limit acts first, inside the worker, on opening it and on every clip; this one is for
        # workers that hang beyond its reach.
        timeout=dataset.reading.timeout * (1 + dataset.num_clips) + MARGIN if workers else 0,
        persistent_workers=workers > 0,
        worker_init_fn=partial(_leave_signals_to_parent, closing=_closing()),
        generator=torch.Generator(),  # its own, so that iterating leaves the global generator alone
    )
    return Loader(dataset, sampler, data_loader)


def _start(data_loader: DataLoader[Any]) -> Iterator[Any]:
    """Start the workers. Those that do not fork import what reads clips, and not this process's command once more."""
    main = sys.modules["__main__"]
    spec, file = main.__spec__, getattr(main, "__file__", None)
    if spec is None or not spec.name.startswith("stvideo."):
        return iter(data_loader)
    main.__spec__, main.__file__ = None, None
    try:
        return iter(data_loader)
    finally:
        main.__spec__, main.__file__ = spec, file


@cache
def _closing() -> torch.Tensor:
    """Share one number among all loaders of this process, 1 once it ends; each would hold a file open otherwise."""
    closing = torch.zeros(1, dtype=torch.uint8).share_memory_()
    atexit.register(closing.fill_, 1)
    return closing


def _leave_signals_to_parent(worker: int, closing: torch.Tensor) -> None:
    """Ignore a scheduler's signal, which goes to every process of a job; the training process ends its workers.

    ``closing`` (shared, one number) is set once the parent process ends: from then on SIGTERM means what it says.
    """
    for name in ("SIGUSR1", "SIGINT"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0) if closing.item() else None)


def collate(reads: list[Read]) -> tuple[Batch, list[Problem], list[StvideoError]]:
    """Join what the requests of a batch gave: the batch, the unreadable videos, and the error that ends everything.

    The batch is empty if every video of it was skipped.
    """
    samples = [sample for read in reads for sample in read.samples]
    problems = [problem for read in reads for problem in read.problems]
    errors = [read.error for read in reads if read.error is not None][:1]
    if errors or not samples:
        return {}, problems, errors
    names = ("label", "index", "view", "substituted")
    batch = {name: torch.tensor([sample[name] for sample in samples]) for name in names}
    return {**batch, "video": torch.stack([sample["video"] for sample in samples])}, problems, errors
