"""The list of videos of a data set, held as a few arrays.

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
from multiprocessing.context import get_spawning_popen
from typing import Any

import numpy as np
import torch

_ARRAYS = ("names", "ends", "labels", "start", "end")
_BLOCK = 65_536  # entries handled at a time, so that what they need meanwhile stays small


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
        spans: Sequence[tuple[float, float]] | None = None,
        notes: Iterable[str] = (),
        official: int | None = None,
    ) -> VideoIndex:
        """From paths and labels; ``spans`` are (start, end) seconds, NaN for "not given"."""
        builder = IndexBuilder()
        for number, (path, label) in enumerate(zip(paths, labels, strict=True)):
            builder.add(path, label, spans[number] if spans is not None else None)
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
        """The videos whose numbers are in ``keep``, in that order; notes, classes and official size stay."""
        keep = np.asarray(keep, dtype=np.int64)
        lengths = np.diff(self.ends, prepend=0)
        ends = np.cumsum(lengths[keep])
        names = np.empty(int(ends[-1]) if len(ends) else 0, dtype=np.uint8)
        for first in range(0, len(keep), _BLOCK):
            block = keep[first : first + _BLOCK]
            size = lengths[block]
            target = int(ends[first] - size[0])
            starts_here = np.cumsum(size) - size
            source = np.repeat(self.ends[block] - size - starts_here, size) + np.arange(int(size.sum()))
            names[target : target + len(source)] = self.names[source]
        return VideoIndex(
            names,
            ends,
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
        hashes = np.empty(len(self), dtype=np.int64)
        origin = 0
        for first in range(0, len(self), _BLOCK):
            ends = (self.ends[first : first + _BLOCK] - origin).tolist()
            names = self.names[origin : origin + ends[-1]].tobytes()
            begins = [0, *ends[:-1]]
            hashes[first : first + _BLOCK] = [hash(names[a:b]) for a, b in zip(begins, ends, strict=True)]
            origin += ends[-1]
        return hashes

    def empty_classes(self) -> list[str]:
        """Names of the classes that have no video."""
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
        """For a process that is being spawned the arrays move to shared memory, once, where all workers read them."""
        state = {**self.__dict__, "_shared": {}}
        if get_spawning_popen() is None:
            return state
        for name in _ARRAYS:
            if state[name] is not None and name not in self._shared:
                self._shared[name] = torch.from_numpy(state[name]).share_memory_()
                setattr(self, name, self._shared[name].numpy())
        return {**state, **self._shared}

    def __setstate__(self, state: dict[str, Any]) -> None:
        shared = {name: values for name, values in state.items() if isinstance(values, torch.Tensor)}
        arrays = {name: values.numpy() for name, values in shared.items()}
        self.__dict__.update({**state, **arrays, "_shared": shared})


class IndexBuilder:
    """Collects entries one after another without keeping a Python object for any of them."""

    def __init__(self) -> None:
        self.names, self.ends, self.labels = bytearray(), array("q"), array("i")
        self.start: array[float] | None = None
        self.end: array[float] | None = None

    def __len__(self) -> int:
        return len(self.ends)

    def add(self, path: str, label: int, span: tuple[float, float] | None = None) -> None:
        """One more video; ``span`` in seconds, NaN for "not given"."""
        if span is not None and self.start is None:
            self.start, self.end = array("d", [math.nan]) * len(self), array("d", [math.nan]) * len(self)
        self.names += path.encode("utf-8", "surrogateescape")
        self.ends.append(len(self.names))
        self.labels.append(label)
        if self.start is not None and self.end is not None:
            start, end = span or (math.nan, math.nan)
            self.start.append(start)
            self.end.append(end)

    def finish(self, classes: list[str], notes: Iterable[str] = (), official: int | None = None) -> VideoIndex:
        """The index, which takes the memory over; the builder is not to be used any more."""
        return VideoIndex(
            names=np.frombuffer(self.names, dtype=np.uint8),
            ends=np.frombuffer(self.ends, dtype=np.int64),
            labels=np.frombuffer(self.labels, dtype=np.int32),
            classes=classes,
            start=None if self.start is None else np.frombuffer(self.start, dtype=np.float64),
            end=None if self.end is None else np.frombuffer(self.end, dtype=np.float64),
            notes=list(notes),
            official=official,
        )
