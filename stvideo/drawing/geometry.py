"""Where the patch grid of a model lies on a video frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Crop:
    """The part of a frame that a model sees, in pixels of that frame (edges, not pixel centres).

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
    def whole(cls, frame_width: int, frame_height: int) -> Crop:
        """The crop of a model that sees all of the frame."""
        return cls(0.0, 0.0, float(frame_width), float(frame_height), frame_width, frame_height)

    @property
    def covers_frame(self) -> bool:
        """Whether less than a pixel is cut off on every side."""
        right = self.frame_width - self.left - self.width
        bottom = self.frame_height - self.top - self.height
        return max(self.left, self.top, right, bottom) < 1.0

    def scaled(self, frame_width: int, frame_height: int) -> Crop:
        """The same crop on a copy of the frame with another size."""
        x, y = frame_width / self.frame_width, frame_height / self.frame_height
        return Crop(self.left * x, self.top * y, self.width * x, self.height * y, frame_width, frame_height)

    def patch_of_pixels(self, rows: int, columns: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Which patch each pixel row and each pixel column belongs to.

        Args:
            rows, columns: size of the patch grid that covers the crop.

        Returns:
            (frame_height,) patch row and (frame_width,) patch column under each pixel's centre; -1 outside.
        """
        return (
            _cells(self.frame_height, self.top, self.height, rows),
            _cells(self.frame_width, self.left, self.width, columns),
        )

    def patch_box(self, row: int, column: int, rows: int, columns: int) -> tuple[float, float, float, float]:
        """Left, top, right and bottom edge of one patch, in pixels of the frame."""
        width, height = self.width / columns, self.height / rows
        left, top = self.left + column * width, self.top + row * height
        return left, top, left + width, top + height


def _cells(length: int, start: float, extent: float, count: int) -> NDArray[np.int64]:
    """For each of ``length`` pixels the cell, of ``count`` over [start, start + extent), that holds its centre."""
    centres = np.arange(length) + 0.5
    cells = np.floor((centres - start) / extent * count).astype(np.int64)
    cells[(cells < 0) | (cells >= count)] = -1
    return cells


def fit(width: int, height: int, max_width: int, max_height: int) -> tuple[int, int]:
    """The largest size of the same shape inside a box, at least one pixel each way."""
    scale = min(max_width / width, max_height / height)
    return max(1, round(width * scale)), max(1, round(height * scale))
