"""Write frames as an H.264 file, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from stvideo.core.files import replacing


@contextmanager
def video_writer(
    path: Path, fps: float | Fraction, width: int, height: int
) -> Iterator[Callable[[NDArray[np.uint8]], None]]:
    """Open an H.264 (yuv420p) MP4; yields a function that appends one (height, width, 3) uint8 RGB frame.

        with video_writer(path, fps=29.97, width=340, height=256) as write:
            write(frame)

    The file appears under its name only when the block ends without an error. H.264 in 4:2:0 needs even sizes:
    an odd frame is extended by repeating its last column or row, so that no pixel moves.

    Raises:
        StvideoError: the file cannot be written.
    """
    rate, down, right = Fraction(fps).limit_denominator(1001), height % 2, width % 2
    with replacing(path) as temporary:
        try:
            with av.open(temporary, "w", format="mp4", options={"movflags": "+faststart"}) as container:
                stream = container.add_stream("libx264", rate=rate if rate > 0 else Fraction(25))
                stream.width, stream.height, stream.pix_fmt = width + right, height + down, "yuv420p"
                stream.options = {"crf": "18", "preset": "veryfast"}

                def write(frame: NDArray[np.uint8]) -> None:
                    even = np.pad(frame, ((0, down), (0, right), (0, 0)), mode="edge")
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))

                yield write
                container.mux(stream.encode(None))
        except av.error.FFmpegError as error:  # some are no OSErrors
            raise OSError(error.strerror or str(error)) from None
