"""Show decoded frames: in RGB, scaled, turned and mirrored as the file says."""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import torch
from av.video.reformatter import VideoReformatter


class Orientation(NamedTuple):
    """How the frames of a video are displayed: first flipped top to bottom, then turned counter-clockwise."""

    mirrored: bool
    rotation: int  # degrees: 0, 90, 180 or 270

    def displayed(self, stored: tuple[int, int]) -> tuple[int, int]:
        """Swap (width, height) as stored where the video is turned by 90 degrees."""
        return stored if self.rotation % 180 == 0 else (stored[1], stored[0])


class Display:
    """Convert the decoded frames of one video, in this thread.

    PyAV's frames convert themselves as well, but each with threads of its own, one per core, whose start and end may
    take far longer than the conversion, and which a forked process must not inherit.

    Args:
        stored: the video's (width, height), which frames of another size are given too, if not a size asked.
    """

    def __init__(self, stored: tuple[int, int] | None = None) -> None:
        self.stored = stored
        self._reformatter = VideoReformatter()
        self._mirrored: bool | None = None

    def rgb(self, frame: Any, size: tuple[int, int] | None = None) -> np.ndarray:
        """Convert to uint8 (H, W, 3), scaled to ``size`` = (height, width) as displayed."""
        turns = quarter_turns(frame)
        width, height = self.stored or (frame.width, frame.height)
        if size is not None:
            height, width = size if turns % 2 == 0 else size[::-1]
        how: dict[str, Any] = {}
        if size is not None or (width, height) != (frame.width, frame.height):
            how = {"width": width, "height": height, "interpolation": "BILINEAR"}
        pixels = self.reformat(frame, format="rgb24", **how).to_ndarray()
        if self.is_mirrored(frame):
            pixels = pixels[::-1]
        return np.rot90(pixels, turns) if turns else pixels

    def reformat(self, frame: Any, **how: Any) -> Any:
        """Change size or pixel format, as `av.VideoFrame.reformat`."""
        return self._reformatter.reformat(frame, threads=1, **how)

    def orientation(self, frame: Any) -> Orientation:
        """Tell how ``frame``, and with it the video, is displayed."""
        return Orientation(self.is_mirrored(frame), quarter_turns(frame) * 90)

    def is_mirrored(self, frame: Any) -> bool:
        """Tell whether the frames have to be flipped top to bottom for display, before they are turned.

        Asked of the first frame only: one whose side data was read is freed by the garbage collector alone.
        """
        if self._mirrored is None:
            matrix = None
            with suppress(ValueError):  # PyAV lists none of the side data if it has no name for one, as for EXIF
                matrix = frame.side_data.get("DISPLAYMATRIX")
            a, b, _, c, d = struct.unpack("=5i", bytes(matrix)[:20]) if matrix is not None else (1, 0, 0, 0, 1)
            self._mirrored = a * d < b * c  # a negative determinant: no turn alone does that
        return self._mirrored


def quarter_turns(frame: Any) -> int:
    """Count the turns by 90 degrees counter-clockwise that a frame needs for display."""
    return round(frame.rotation / 90) % 4


def scale_frames(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scale frames (T, H, W, 3) uint8 to ``size`` = (height, width), antialiased bilinear."""
    return scale_pictures(torch.from_numpy(frames).permute(0, 3, 1, 2), size).permute(0, 2, 3, 1).numpy()


def scale_pictures(pictures: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Scale pictures (T, 3, H, W) uint8 to ``size`` = (height, width), antialiased bilinear."""
    return torch.nn.functional.interpolate(pictures, size, mode="bilinear", antialias=True)
