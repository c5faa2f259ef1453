"""Copying the clips of the next batch to the GPU while the present one is computed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import torch

Batch = dict[str, torch.Tensor]

MOVED = ("video",)  # the rest is a few numbers per clip, and most of it is wanted on the host


class Copier(Protocol):
    """A way of copying a batch that may go on after `start` returns."""

    def start(self, batch: Batch) -> Any:
        """Begin to copy ``batch``."""

    def finish(self, started: Any) -> Batch:
        """The copied batch, ready for the work that is queued next."""


class CudaCopier:
    """Copies on a stream of its own, beside the computing, from pinned memory (``pin_memory`` of the loader)."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)

    def start(self, batch: Batch) -> tuple[Batch, torch.cuda.Event]:
        with torch.cuda.stream(self.stream):
            copied = {
                name: value.to(self.device, non_blocking=True) if name in MOVED else value
                for name, value in batch.items()
            }
        return copied, self.stream.record_event()

    def finish(self, started: tuple[Batch, torch.cuda.Event]) -> Batch:
        copied, done = started
        computing = torch.cuda.current_stream(self.device)
        computing.wait_event(done)  # not for the stream, on which the next batch is being copied already
        for name in MOVED:
            if name in copied:
                # Its memory belongs to the copying stream, which must not reuse it while the other one reads it.
                copied[name].record_stream(computing)
        return copied


def copier_for(device: torch.device | None) -> Copier | None:
    """What copies batches to ``device`` ahead of time; None where there is nothing to gain."""
    return CudaCopier(device) if device is not None and device.type == "cuda" else None


def one_ahead(batches: Iterable[Batch], copier: Copier | None) -> Iterator[Batch]:
    """``batches`` as ``copier`` copies them, each begun before the one ahead of it is handed out.

    Without a copier the batches pass through untouched, and none is taken before it is asked for.
    """
    if copier is None:
        yield from batches
        return
    waiting: list[Any] = []
    for batch in batches:
        waiting.append(copier.start(batch))
        if len(waiting) > 1:
            yield copier.finish(waiting.pop(0))
    for started in waiting:
        yield copier.finish(started)
