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
import time
import warnings
from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import torch
from torch.utils.data import DataLoader

from stvideo.core.errors import StvideoError
from stvideo.core.messages import EVERY_PROCESS, logger
from stvideo.data.loading.datasets import Sample, Skipped, VideoDataset
from stvideo.data.loading.order import TestSampler, TrainSampler
from stvideo.data.loading.prefetch import Batch, Copier, copier_for, one_ahead
from stvideo.data.video.watchdog import MAX_WORKERS

MARGIN = 60.0  # seconds for what a worker does besides reading videos
DEATH_SECONDS = 5.0  # from a broken connection to the signal that tells of the worker's end; usually milliseconds


class Loader:
    """An iterable of batches that knows where it stands. See `build_loader`.

    Attributes:
        epoch: the epoch that is being, or will be, iterated.
        wait_seconds: time spent waiting for batches since the loader was made.
        unreadable: message of every video found unreadable by this process, by its number.
    """

    def __init__(
        self,
        dataset: VideoDataset,
        sampler: TrainSampler | TestSampler,
        data_loader: DataLoader[Any],
        copier: Copier | None = None,
    ) -> None:
        self.dataset, self.sampler, self.data_loader, self.copier = dataset, sampler, data_loader, copier
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
        """Where the next batch comes from: epoch, and videos used of it by all processes together."""
        return {"epoch": self.sampler.epoch, "offset": self.sampler.offset}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where `state_dict` was taken, possibly with another number of processes or workers."""
        epoch, offset = int(state["epoch"]), int(state["offset"])
        if epoch < 0 or not 0 <= offset <= self.dataset.expected:
            raise StvideoError(f"saved loader position {state} does not fit {self.dataset.expected} videos")
        self.sampler.epoch, self.sampler.offset = epoch, offset

    def __iter__(self) -> Iterator[Batch]:
        """The rest of the epoch; after its last batch the loader stands at the start of the next one."""
        epoch = self.sampler.epoch
        for batch in one_ahead(self._batches(), self.copier):
            if isinstance(self.sampler, TrainSampler):  # a batch counts as used when it is handed out, not before
                self.sampler.offset += self.sampler.global_batch
            if batch:  # nothing of it may be left where unreadable videos are left out
                yield batch
        if isinstance(self.sampler, TrainSampler) and self.sampler.epoch == epoch:
            self.sampler.epoch, self.sampler.offset = epoch + 1, 0

    def _batches(self) -> Iterator[Batch]:
        iterator = self._start()
        while (batch := self._next(iterator)) is not None:
            yield batch

    def _start(self) -> Iterator[Any]:
        before = time.perf_counter()
        iterator = iter(self.data_loader)
        self.wait_seconds += time.perf_counter() - before
        return iterator

    def _next(self, iterator: Iterator[Any]) -> Batch | None:
        before = time.perf_counter()
        try:
            batch, problems = self._wait(iterator)
        except StopIteration:
            return None
        except (RuntimeError, OSError, EOFError) as error:
            if isinstance(error, ConnectionError | EOFError):
                _hear_of_death()
            raise self.explain(error) or error from error
        finally:
            self.wait_seconds += time.perf_counter() - before
        if isinstance(problems, StvideoError):
            try:
                raise problems
            finally:
                # A local name would tie the error, this frame and through it the loader into a cycle, and workers whose
                # loader is left to the garbage collector take ten seconds to end.
                del problems
        self._note(problems)
        return batch

    def _wait(self, iterator: Iterator[Any]) -> Any:
        """The next batch, waited for as long as no worker is at one and the same video for too long."""
        while True:
            try:
                return next(iterator)
            except RuntimeError as error:
                longest = self.dataset.reading_now.longest()
                if "timed out" not in str(error) or longest is None or longest > self.data_loader.timeout:
                    raise

    def _note(self, problems: list[tuple[int, str]]) -> None:
        for video, message in problems:
            if video not in self.unreadable:
                self.unreadable[video] = message
                consequence = "training goes on with another video" if self.dataset.train else "left out"
                logger.warning(f"{message}; {consequence}", extra=EVERY_PROCESS)
        if not self.dataset.train:
            return
        share = len(self.unreadable) / self.dataset.expected
        if problems and share > self.dataset.max_unreadable:
            raise StvideoError(
                f"{len(self.unreadable)} of {self.dataset.expected} training videos are unreadable, more than "
                f"data.max_unreadable={self.dataset.max_unreadable:g} allows; the last: {problems[-1][1]}"
            )

    def explain(self, error: Exception) -> StvideoError | None:
        """What a dead or hanging worker means, with the files that were being decoded; None for any other error."""
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
    train: bool | None = None,
    pin_memory: bool | None = None,
    prefetch: int = 2,
    device: torch.device | None = None,
) -> Loader:
    """A `Loader` over ``dataset``.

    Training: shuffled by (seed, epoch), the same number of full batches on every rank. Evaluation: all views of all
    videos, each exactly once over all ranks, whose shares may differ by one video.

    Args:
        dataset: from `build_dataset`.
        batch_size: clips per process and batch.
        workers: loader processes; 0 reads in this one.
        seed: of the order.
        rank, world_size: this process among all.
        train: as the dataset, if not given.
        pin_memory: None: where CUDA is there.
        prefetch: batches that each worker prepares ahead.
        device: where the clips go. On a GPU the next batch is copied there while the present one is computed.

    Raises:
        StvideoError: fewer training videos than one batch over all processes needs, or a size is wrong.
    """
    train = dataset.train if train is None else train
    if train != dataset.train:
        raise StvideoError(f"a loader for {'training' if train else 'evaluation'} needs a dataset built for it")
    if batch_size < 1:
        raise StvideoError(f"data.batch_size={batch_size}: expected at least 1")
    if not 0 <= workers < MAX_WORKERS:
        raise StvideoError(f"data.workers={workers}: expected 0 (read in the training process) to {MAX_WORKERS - 1}")
    sampler: TrainSampler | TestSampler
    if train:
        sampler = TrainSampler(dataset.expected, dataset.num_clips, batch_size, seed, rank, world_size)
    else:
        sampler = TestSampler(dataset.expected, dataset.views_per_video, batch_size, rank, world_size)
    # The video's own time limit acts first, inside the worker, on opening it and on every clip; this one is for workers
    # that hang beyond its reach.
    timeout = dataset.reading.timeout * (1 + dataset.num_clips) + MARGIN if workers else 0
    # How many workers pay is for `data_wait_share` to say; torch warns as soon as there are more than cores.
    warnings.filterwarnings("ignore", message="This DataLoader will create")
    data_loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available() if pin_memory is None else pin_memory,
        timeout=timeout,
        persistent_workers=workers > 0,
        prefetch_factor=prefetch if workers else None,
        worker_init_fn=partial(_leave_signals_to_parent, closing=_closing()),
        generator=torch.Generator(),  # its own, so that iterating leaves the global generator alone
    )
    return Loader(dataset, sampler, data_loader, copier_for(device))


def _hear_of_death() -> None:
    """Wait for torch's word of a worker that has just broken its connection.

    Its signal handler raises wherever this process then is; later on that would be in the midst of telling the user.
    """
    with contextlib.suppress(RuntimeError):
        time.sleep(DEATH_SECONDS)


@cache
def _closing() -> torch.Tensor:
    """One shared number for all loaders of this process, 1 once it ends; each would hold a file open otherwise."""
    closing = torch.zeros(1, dtype=torch.uint8).share_memory_()
    atexit.register(closing.fill_, 1)
    return closing


def _leave_signals_to_parent(worker: int, closing: torch.Tensor) -> None:
    """A scheduler's signal goes to every process of a job; the training process acts on it and ends its workers.

    ``closing`` (shared, one number) is set once the parent process ends: from then on SIGTERM means what it says.
    """

    def end(number: int, frame: object) -> None:
        if closing.item():
            os._exit(0)

    for name in ("SIGUSR1", "SIGINT"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end)


def collate(
    groups: list[list[Sample] | Skipped | StvideoError],
) -> tuple[Batch, list[tuple[int, str]] | StvideoError]:
    """Lists of samples -> one batch, and the problems met while reading it, or the error that ends everything.

    The batch is empty if every video of it was skipped.
    """
    samples: list[Sample] = []
    problems: list[tuple[int, str]] = []
    for group in groups:
        if isinstance(group, StvideoError):
            return {}, group
        if isinstance(group, Skipped):
            problems.append((group.video, group.message))
        else:
            samples += group
    problems += [problem for sample in samples for problem in sample.get("problems", [])]
    if not samples:
        return {}, problems
    batch = {name: torch.tensor([sample[name] for sample in samples]) for name in ("label", "index", "view")}
    batch["substituted"] = torch.tensor([sample["substituted"] for sample in samples])
    batch["video"] = torch.stack([sample["video"] for sample in samples])
    return batch, problems
