"""Write frames as an H.264 file or as a GIF, one at a time."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stvideo.core.errors import StvideoError


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
        try:
            for packet in self._stream.encode(picture):
                self._container.mux(packet)
        except (OSError, ValueError) as error:  # PyAV's errors are one or the other
            reason = getattr(error, "strerror", None) or error
            raise StvideoError(f"{self.path}: cannot be written: {reason}") from None

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


GIF_SIDE = 400  # pixels of the longer side
GIF_FRAMES = 150
GIF_RATE = 10  # frames a second at most


class GifWriter:
    """A GIF that plays in real time: at most `GIF_FRAMES` frames of the video, spread over all of it, made small.

    GIF has 256 colours a frame and no compression to speak of, so it is for short videos; the MP4 is the exact one.

    Args:
        path: the file; it appears when the block ends without an error.
        fps: rate at which `write` is called.
        count: how often it will be called.

    Raises:
        StvideoError: the file cannot be written.
    """

    def __init__(self, path: Path, fps: float, count: int) -> None:
        self.path, self.fps, self.count = path, fps, count
        self.step = max(1, round(fps / GIF_RATE), -(-count // GIF_FRAMES))
        self._frames: list[Image.Image] = []
        self._starts: list[int] = []
        self._written = 0

    def write(self, frame: NDArray[np.uint8]) -> None:
        """Append one (height, width, 3) uint8 RGB frame, or pass it over."""
        if self._written % self.step == 0:
            image = Image.fromarray(frame)
            image.thumbnail((GIF_SIDE, GIF_SIDE))
            self._frames.append(image.quantize(256, dither=Image.Dither.NONE))
            self._starts.append(self._written)
        self._written += 1

    def __enter__(self) -> GifWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None or not self._frames:
            return
        # GIF counts in hundredths of a second: round the times, not the steps between them, so that none is lost.
        times = [round(100 * start / self.fps) for start in [*self._starts, self._written]]
        durations = [10 * max(2, after - before) for before, after in pairwise(times)]
        temporary = self.path.with_name(f".{self.path.name}.part")
        try:
            first, *rest = self._frames
            first.save(temporary, "GIF", save_all=True, append_images=rest, duration=durations, loop=0)
            temporary.replace(self.path)
        except OSError as problem:
            raise StvideoError(f"{self.path}: cannot be written: {problem.strerror or problem}") from None
        finally:
            temporary.unlink(missing_ok=True)
