"""The list of videos of a data set, held as a few arrays.

A million entries as Python objects weigh hundreds of megabytes, and every loader process slowly copies them as it
touches their reference counts. Arrays are small and stay shared with the workers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass
class VideoIndex:
    """Videos, their labels, and optionally the part of each video that counts.

    Attributes:
        names: UTF-8 of all paths (relative to the data root) end to end; ``ends``: where each of them ends.
        labels: int32 class numbers.
        start, end: float32 seconds, NaN where the whole video counts; None if that holds for all.
        classes: class names, in the order of their numbers.
        notes: what a person should know about the list, e.g. how many videos are missing on disk.
    """

    names: np.ndarray
    ends: np.ndarray
    labels: np.ndarray
    classes: list[str]
    start: np.ndarray | None = None
    end: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)

    @classmethod
    def build(
        cls,
        paths: Sequence[str],
        labels: Iterable[int],
        classes: list[str],
        spans: Sequence[tuple[float, float]] | None = None,
        notes: Iterable[str] = (),
    ) -> VideoIndex:
        """From Python lists; ``spans`` are (start, end) seconds, NaN for "not given"."""
        encoded = [path.encode("utf-8", "surrogateescape") for path in paths]
        lengths = np.fromiter((len(name) for name in encoded), dtype=np.int64, count=len(encoded))
        trimmed = None if spans is None else np.asarray(spans, dtype=np.float32).reshape(-1, 2)
        if trimmed is not None and np.isnan(trimmed).all():
            trimmed = None
        return cls(
            names=np.frombuffer(b"".join(encoded), dtype=np.uint8),
            ends=np.cumsum(lengths),
            labels=np.asarray(labels if isinstance(labels, list | np.ndarray) else list(labels), dtype=np.int32),
            classes=classes,
            start=None if trimmed is None else trimmed[:, 0].copy(),
            end=None if trimmed is None else trimmed[:, 1].copy(),
            notes=list(notes),
        )

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
        """The videos whose numbers are in ``keep``."""
        spans = (
            None if self.start is None or self.end is None else list(zip(self.start[keep], self.end[keep], strict=True))
        )
        return VideoIndex.build(
            [self.path(int(video)) for video in keep], self.labels[keep], self.classes, spans, self.notes
        )

    def digest(self) -> str:
        """SHA-256 over paths, labels and class names: two runs with the same digest saw the same list."""
        state = hashlib.sha256()
        for array in (self.names, self.ends, self.labels, self.start, self.end):
            state.update(b"-" if array is None else np.ascontiguousarray(array).tobytes())
        state.update("\n".join(self.classes).encode())
        return state.hexdigest()
