"""Map the patch grid of a model to the pixels of a video frame."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PatchArea:
    """The part of a frame that the patch grid covers, in pixels of that frame (edges, not pixel centres).

    Attributes:
        left, top, width, height: the rectangle; fractions of a pixel are allowed.
        frame_width, frame_height: size of the frame it lies on, as displayed (after any rotation).
    """

    left: float
    top: float
    width: float
    height: float
    frame_width: int
    frame_height: int

    @classmethod
    def whole(cls, frame_width: int, frame_height: int) -> PatchArea:
        """Cover all of the frame, as for a model that crops nothing."""
        return cls(0.0, 0.0, float(frame_width), float(frame_height), frame_width, frame_height)

    @property
    def covers_frame(self) -> bool:
        """Whether less than a pixel is cut off on every side."""
        right = self.frame_width - self.left - self.width
        bottom = self.frame_height - self.top - self.height
        return max(self.left, self.top, right, bottom) < 1.0

    def scaled(self, frame_width: int, frame_height: int) -> PatchArea:
        """Scale the rectangle along with the frame to another size."""
        x, y = frame_width / self.frame_width, frame_height / self.frame_height
        return PatchArea(self.left * x, self.top * y, self.width * x, self.height * y, frame_width, frame_height)

    def patch_of_pixels(self, rows: int, columns: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Find the patch under the centre of each pixel.

        Args:
            rows, columns: size of the patch grid.

        Returns:
            (frame_height,) patch row and (frame_width,) patch column of every pixel row and column; -1 outside.
        """
        return (
            _cells(self.frame_height, self.top, self.height, rows),
            _cells(self.frame_width, self.left, self.width, columns),
        )


def fit(width: int, height: int, max_width: int, max_height: int, enlarge: bool = True) -> tuple[int, int]:
    """Scale (width, height) to the largest size inside a box, at least one pixel each way."""
    scale = min(max_width / width, max_height / height, math.inf if enlarge else 1)
    return max(1, round(width * scale)), max(1, round(height * scale))


def spread(count: int, most: int) -> list[int]:
    """Choose at most ``most`` of the numbers 0 .. count - 1, evenly spread, both ends included."""
    return sorted({int(i) for i in np.linspace(0, count - 1, min(count, max(most, 1))).round()})


def _cells(length: int, start: float, extent: float, count: int) -> NDArray[np.int64]:
    """Find for each of ``length`` pixels the cell, of ``count`` over [start, start + extent), that holds its centre."""
    cells = np.floor((np.arange(length) + 0.5 - start) / extent * count).astype(np.int64)
    return np.where((cells >= 0) & (cells < count), cells, -1)
