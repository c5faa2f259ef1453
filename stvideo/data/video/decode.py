"""Open video files for reading: one door for every decoder.

    with open_video(path) as video:
        frames = video.read([0, 32, 64])        # uint8 (T, H, W, 3), RGB, as displayed

``decord`` and ``torchcodec`` come first where they are asked for; files on which they are known to err, hang or differ
(open groups of pictures, edit lists, MPEG-TS, AV1 and others, told from the packets in milliseconds) go to PyAV.
``auto`` is PyAV for every file: its reader decodes only what the wanted frames need, so no other was found quicker on
single frames, and it reports damage where decord shows the last good frame again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from stvideo.data.video.formats import IMAGE_SUFFIXES
from stvideo.data.video.images import StillImage
from stvideo.data.video.packets import UnreadableVideo, VideoInfo
from stvideo.data.video.video import DECODERS, Video

__all__ = [
    "DECODERS", "Readable", "UnreadableVideo", "Video", "VideoInfo", "open_video", "probe", "read_frames", "seconds_at",
]  # fmt: skip

Readable = Video | StillImage
"""What `open_video` gives: both have frames to read, and neither knows of the other."""


def open_video(
    path: str | Path, decoder: str = "auto", timeout: float = 60.0, num_frames: int | None = None
) -> Readable:
    """Open ``path`` for reading; see `Video`. An image file is a video of one frame.

    Args:
        decoder: comes first; where it is known to err on such files, or fails, PyAV reads them.
        num_frames: only so many from the start on can be decoded, whatever the file says.
    """
    if Path(path).suffix.lower() in IMAGE_SUFFIXES:
        return StillImage(path)
    video = Video(path, decoder, timeout, fall_back=True)
    if num_frames is not None:
        video.shorten(num_frames)
    return video


def seconds_at(video: Readable, places: Sequence[float] | np.ndarray) -> np.ndarray:
    """Seconds at which ``places`` in a video, counted in frames and parts of them, are shown; it may vary its rate."""
    times = video.times
    return np.interp(places, np.arange(len(times) + 1), [*times, times[-1] + 1 / video.fps])


def probe(path: str | Path) -> VideoInfo:
    """Describe a video file; raises `UnreadableVideo`."""
    with open_video(path) as video:
        return video.info


def read_frames(
    path: str | Path, indices: Sequence[int], size: int | tuple[int, int] | None = None, decoder: str = "auto"
) -> torch.Tensor:
    """Read frames ``indices`` of ``path`` as uint8 (T, H, W, 3) RGB; see `Video.read`."""
    with open_video(path, decoder) as video:
        return video.read(indices, size)
