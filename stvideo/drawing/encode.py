"""Write frames as an H.264 file, one at a time."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from numpy.typing import NDArray

from stvideo.errors import StvideoError


class VideoWriter:
    """An H.264 (yuv420p) MP4 that holds one frame in memory at a time.

        with VideoWriter(path, fps=29.97, width=340, height=256) as writer:
            writer.write(frame)

    The file appears under its name only when the block ends without an error. H.264 in 4:2:0 needs even sizes:
    an odd frame is extended by repeating its last column or row, so that no pixel moves.

    Raises:
        StvideoError: the file cannot be written.
    """

    def __init__(self, path: Path, fps: float | Fraction, width: int, height: int) -> None:
        self.path = path
        self._temporary = path.with_name(f".{path.stem}.part{path.suffix}")
        self._pad = (height % 2, width % 2)
        rate = Fraction(fps).limit_denominator(1001)
        try:
            self._temporary.touch()  # PyAV opens the file only with the first packet
            self._container = av.open(str(self._temporary), "w", options={"movflags": "+faststart"})
        except OSError as error:  # PyAV's errors are OSErrors too
            raise StvideoError(f"{path}: cannot be written: {error.strerror or error}") from None
        self._stream = self._container.add_stream("libx264", rate=rate if rate > 0 else Fraction(25))
        self._stream.width, self._stream.height = width + self._pad[1], height + self._pad[0]
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = {"crf": "18", "preset": "veryfast"}

    def write(self, frame: NDArray[np.uint8]) -> None:
        """Append one (height, width, 3) uint8 RGB frame."""
        down, right = self._pad
        if down or right:
            frame = np.pad(frame, ((0, down), (0, right), (0, 0)), mode="edge")
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        for packet in self._stream.encode(picture):
            self._container.mux(packet)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                for packet in self._stream.encode(None):
                    self._container.mux(packet)
            self._container.close()
            if kind is None:
                self._temporary.replace(self.path)
        except OSError as problem:
            raise StvideoError(f"{self.path}: cannot be written: {problem.strerror or problem}") from None
        finally:
            self._temporary.unlink(missing_ok=True)
