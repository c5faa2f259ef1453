"""Hold the list of videos of a data set as a few arrays.

A million entries as Python objects weigh hundreds of megabytes, and every loader process slowly copies them as it
touches their reference counts. Arrays are small and stay shared with the workers: forked ones see the memory of their
parent, to spawned ones it is handed over as shared memory.
"""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
from multiprocessing.context import get_spawning_popen
from typing import Any

import numpy as np
import torch

Span = tuple[float, float]
"""Start and end in seconds of the part of a video that counts."""

_ARRAYS = ("names", "ends", "labels", "start", "end")


@dataclass
class VideoIndex:
    """Videos, their labels, and optionally the part of each video that counts.

    Attributes:
        names: UTF-8 of all paths (relative to the data root) end to end; ``ends``: where each of them ends.
        labels: int32 class numbers.
        start, end: float64 seconds, NaN where the video's own start or end counts; None if that holds for all.
        classes: class names, in the order of their numbers.
        notes: what a person should know about the list, e.g. how many videos are missing on disk.
        official: videos in the official split that the list was made from, missing ones included; None if unknown.
    """

    names: np.ndarray
    ends: np.ndarray
    labels: np.ndarray
    classes: list[str]
    start: np.ndarray | None = None
    end: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)
    official: int | None = None
    _shared: dict[str, torch.Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def build(
        cls,
        paths: Iterable[str],
        labels: Iterable[int],
        classes: list[str],
        spans: Iterable[Span] | None = None,
        notes: Iterable[str] = (),
        official: int | None = None,
    ) -> VideoIndex:
        """Collect paths and labels; ``spans`` are (start, end) seconds, NaN for "not given"."""
        builder = IndexBuilder()
        for columns in zip(paths, labels, *([] if spans is None else [spans]), strict=True):
            builder.add(*columns)
        return builder.finish(classes, notes, official)

    def __len__(self) -> int:
        return len(self.ends)

    def path(self, video: int) -> str:
        """Path of video number ``video``, relative to the data root."""
        first = int(self.ends[video - 1]) if video else 0
        return bytes(self.names[first : int(self.ends[video])]).decode("utf-8", "surrogateescape")

    def paths(self) -> list[str]:
        return [self.path(video) for video in range(len(self))]

    def span(self, video: int) -> tuple[float | None, float | None]:
        """Start and end in seconds of the part that counts, None where the video's own start or end does."""
        if self.start is None or self.end is None:
            return None, None
        start, end = float(self.start[video]), float(self.end[video])
        return (None if np.isnan(start) else start), (None if np.isnan(end) else end)

    def select(self, keep: np.ndarray) -> VideoIndex:
        """Take the videos whose numbers are in ``keep``, in that order; notes, classes and official size stay."""
        keep = np.asarray(keep, dtype=np.int64)
        lengths = np.diff(self.ends, prepend=0)[keep]
        view, names = self.names.data, bytearray()
        for first, end in zip((self.ends[keep] - lengths).tolist(), self.ends[keep].tolist(), strict=True):
            names += view[first:end]
        return VideoIndex(
            np.frombuffer(names, dtype=np.uint8),
            np.cumsum(lengths),
            self.labels[keep],
            self.classes,
            None if self.start is None else self.start[keep],
            None if self.end is None else self.end[keep],
            list(self.notes),
            self.official,
        )

    def repeats(self) -> list[tuple[int, int]]:
        """Pairs (first, again) of entries with the same path and the same part of it, in the order of the second."""
        hashes = self.path_hashes()
        for times, factor in ((self.start, 3), (self.end, 5)):
            if times is not None:
                hashes ^= times.view(np.int64) * factor
        # Equal hashes are rare enough to look at one by one.
        order = np.argsort(hashes, kind="stable")
        alike = np.flatnonzero(np.diff(hashes[order]) == 0)
        first_of: dict[Any, int] = {}
        pairs = []
        for number in np.unique(np.concatenate([order[alike], order[alike + 1]])).tolist():
            first = first_of.setdefault((self.path(number), self.span(number)), number)
            if first != number:
                pairs.append((first, number))
        return pairs

    def path_hashes(self) -> np.ndarray:
        """int64: Python's hash of every path as bytes, which differs from process to process."""
        view = self.names.data
        places = pairwise(chain([0], self.ends.tolist()))
        return np.fromiter((hash(bytes(view[first:end])) for first, end in places), dtype=np.int64, count=len(self))

    def empty_classes(self) -> list[str]:
        """List the classes that have no video."""
        counts = np.bincount(self.labels, minlength=len(self.classes))
        return [self.classes[number] for number in np.flatnonzero(counts[: len(self.classes)] == 0).tolist()]

    def digest(self) -> str:
        """SHA-256 over paths, labels and class names: two runs with the same digest saw the same list."""
        state = hashlib.sha256()
        for values in (self.names, self.ends, self.labels, self.start, self.end):
            state.update(b"-" if values is None else np.ascontiguousarray(values).data)
        state.update("\n".join(self.classes).encode())
        return state.hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        """Move the arrays to shared memory, once, for a process that is being spawned."""
        if get_spawning_popen() is not None:
            for name in _ARRAYS:
                if name not in self._shared and getattr(self, name) is not None:
                    self._shared[name] = torch.from_numpy(getattr(self, name)).share_memory_()
                    setattr(self, name, self._shared[name].numpy())
            return {**self.__dict__, **dict.fromkeys(self._shared)}
        return {**self.__dict__, "_shared": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        arrays = {name: values.numpy() for name, values in state["_shared"].items()}
        self.__dict__.update({**state, **arrays})


class IndexBuilder:
    """Collect entries one after another without keeping a Python object for any of them."""

    def __init__(self) -> None:
        self.names, self.ends, self.labels = bytearray(), array("q"), array("i")
        self.spans: array[float] | None = None  # start and end in turns

    def __len__(self) -> int:
        return len(self.ends)

    def add(self, path: str, label: int, span: Span | None = None) -> None:
        """Add a video; ``span`` in seconds, NaN for "not given"."""
        if span is not None and self.spans is None:
            self.spans = array("d", [math.nan]) * (2 * len(self))
        self.names += path.encode("utf-8", "surrogateescape")
        self.ends.append(len(self.names))
        self.labels.append(label)
        if self.spans is not None:
            self.spans.extend(span or (math.nan, math.nan))

    def finish(self, classes: list[str], notes: Iterable[str] = (), official: int | None = None) -> VideoIndex:
        """Make the index, which takes the memory over; the builder is not to be used any more."""
        spans = None if self.spans is None else np.frombuffer(self.spans, dtype=np.float64).reshape(-1, 2)
        return VideoIndex(
            names=np.frombuffer(self.names, dtype=np.uint8),
            ends=np.frombuffer(self.ends, dtype=np.int64),
            labels=np.frombuffer(self.labels, dtype=np.int32),
            classes=classes,
            start=None if spans is None else np.ascontiguousarray(spans[:, 0]),
            end=None if spans is None else np.ascontiguousarray(spans[:, 1]),
            notes=list(notes),
            official=official,
        )


def without(classes: Sequence[str], what: str = "video") -> list[str]:
    """Say in one line that ``classes`` have no ``what``; no line for no class."""
    if len(classes) < 2:
        return [f"class {name!r} has no {what}" for name in classes]
    more = ", ..." if len(classes) > 3 else ""
    return [f"{len(classes)} classes have no {what}: {', '.join(map(repr, classes[:3]))}{more}"]
