"""Decoded frames as they are to be shown: in RGB, scaled, turned and mirrored as the file says."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import numpy as np
from av.video.reformatter import VideoReformatter


class Orientation(NamedTuple):
    """How the frames of a video are displayed: first flipped top to bottom, then turned counter-clockwise."""

    mirrored: bool
    rotation: int  # degrees: 0, 90, 180 or 270

    def displayed(self, stored: tuple[int, int]) -> tuple[int, int]:
        """(width, height) as displayed of frames stored as (width, height)."""
        return stored if self.rotation % 180 == 0 else (stored[1], stored[0])


class Display:
    """Converts the decoded frames of one video, in this thread.

    PyAV's frames convert themselves as well, but each with threads of its own, one per core, whose start and end may
    take far longer than the conversion, and which a forked process must not inherit.
    """

    def __init__(self, stored: tuple[int, int] | None = None) -> None:
        """``stored``: the video's (width, height), which frames of another size are given too, if not a size asked."""
        self.stored = stored
        self._reformatter = VideoReformatter()
        self._mirrored: bool | None = None

    def rgb(self, frame: Any, size: tuple[int, int] | None = None) -> np.ndarray:
        """uint8 (H, W, 3), scaled to ``size`` = (height, width) as displayed, while converting."""
        turns = quarter_turns(frame)
        if size is None and self.stored in (None, (frame.width, frame.height)):
            converted = self.reformat(frame, format="rgb24")
        else:
            height, width = size if size is not None else self.stored[::-1]  # type: ignore[index]
            if size is not None and turns % 2:
                height, width = width, height
            converted = self.reformat(frame, width=width, height=height, format="rgb24", interpolation="BILINEAR")
        pixels = converted.to_ndarray()
        if self.is_mirrored(frame):
            pixels = pixels[::-1]
        return np.rot90(pixels, turns) if turns else pixels

    def reformat(self, frame: Any, **how: Any) -> Any:
        """A frame in another size or pixel format, as `av.VideoFrame.reformat`."""
        return self._reformatter.reformat(frame, threads=1, **how)

    def orientation(self, frame: Any) -> Orientation:
        """How ``frame``, and with it the video, is displayed."""
        return Orientation(self.is_mirrored(frame), quarter_turns(frame) * 90)

    def is_mirrored(self, frame: Any) -> bool:
        """Whether the frames have to be flipped top to bottom for display, before they are turned.

        Asked of the first frame only: one whose side data was read is freed by the garbage collector alone.
        """
        if self._mirrored is None:
            matrix = frame.side_data.get("DISPLAYMATRIX")
            a, b, _, c, d = struct.unpack("=5i", bytes(matrix)[:20]) if matrix is not None else (1, 0, 0, 0, 1)
            self._mirrored = a * d < b * c  # a negative determinant: no turn alone does that
        return self._mirrored


def quarter_turns(frame: Any) -> int:
    """How often a frame has to be turned by 90 degrees counter-clockwise for display."""
    return round(frame.rotation / 90) % 4
