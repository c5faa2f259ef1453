"""Copy the clips of the next batch to the GPU while the present one is computed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch

Batch = dict[str, torch.Tensor]

COPIED = "video"  # the rest is a few numbers per clip, and most of it is wanted on the host


class CudaCopier:
    """Copy on a stream of its own, beside the computing, from pinned memory (``pin_memory`` of the loader)."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)

    def start(self, batch: Batch) -> tuple[Batch, torch.cuda.Event]:
        """Begin to copy ``batch``."""
        if COPIED in batch:
            with torch.cuda.stream(self.stream):
                batch = {**batch, COPIED: batch[COPIED].to(self.device, non_blocking=True)}
        return batch, self.stream.record_event()

    def finish(self, started: tuple[Batch, torch.cuda.Event]) -> Batch:
        """Return the copied batch, ready for the work that is queued next."""
        copied, done = started
        computing = torch.cuda.current_stream(self.device)
        computing.wait_event(done)  # not for the stream, on which the next batch is being copied already
        if COPIED in copied:
            # Its memory belongs to the copying stream, which must not reuse it while the other one reads it.
            copied[COPIED].record_stream(computing)
        return copied


def one_ahead(batches: Iterable[Batch], copier: Any) -> Iterator[Batch]:
    """Give ``batches`` as ``copier`` copies them, each begun before the one ahead of it is handed out.

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
