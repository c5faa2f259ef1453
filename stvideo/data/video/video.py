"""Read the frames of one opened video by whatever decoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import av
import numpy as np
import torch

from stvideo.core.errors import StvideoError, nearest
from stvideo.data.video.decord import decord_errs, decord_problem, read_decord
from stvideo.data.video.display import Orientation
from stvideo.data.video.packets import PacketIndex, UnreadableVideo, VideoInfo, index_packets, naming, open_container
from stvideo.data.video.pyav import PyavReader, find_orientation
from stvideo.data.video.torchcodec import read_torchcodec, torchcodec_errs, torchcodec_problem
from stvideo.data.video.watchdog import TimedOut, call_with_timeout

DECODERS = ("auto", "decord", "pyav", "torchcodec", "sequential")
GRACE = 2.0  # seconds beyond the time limit after which a decoder that checks its time itself counts as hung

Result = TypeVar("Result")


class Video:
    """An opened video; use it as a context manager and read from it as often as needed.

    Args:
        path: the file.
        decoder: one of `DECODERS`; ``auto`` is ``pyav``; ``sequential`` is PyAV without seeking, which counts frames
            from the start of the file.
        timeout: seconds that opening, and every read, may take before the video counts as unreadable.
        fall_back: go to PyAV where the decoder is known to err on such files, or fails.

    Attributes:
        num_frames: frames that can be read. Frame ``i`` is the i-th in display order of the largest video stream.
        fps: frames per second.
        index: what its packets say, `stvideo.data.video.packets.PacketIndex`.

    Raises:
        UnreadableVideo: the file is missing, no video, or damaged.
        StvideoError: the decoder is unknown or not installed.
    """

    def __init__(self, path: str | Path, decoder: str = "auto", timeout: float = 60.0, fall_back: bool = False) -> None:
        if decoder not in DECODERS:
            raise StvideoError(f"unknown decoder {decoder!r}{nearest(decoder, DECODERS)}: choose {', '.join(DECODERS)}")
        problem = decord_problem() if decoder == "decord" else torchcodec_problem() if decoder == "torchcodec" else None
        if problem:
            raise StvideoError(problem)
        self.path, self.timeout, self._fall_back = Path(path), timeout, fall_back
        self._hung = False
        self._orientation: Orientation | None = None
        self._container, self._stream, self.index = self._watched(self._open)
        self.num_frames = self._counted_frames = self.index.num_frames
        self.fps = self.index.fps
        self.decoder = "pyav" if decoder in ("auto", "sequential") else decoder
        self._seeks = decoder != "sequential"
        if fall_back and self.decoder != "pyav" and self._watched(self._is_unsuited):
            self.decoder = "pyav"

    def __enter__(self) -> Video:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self._hung:  # else a thread that nobody waits for is still busy with it
            self._container.close()

    def shorten(self, num_frames: int) -> None:
        """Leave out what comes after the first ``num_frames`` frames."""
        if num_frames < self.num_frames:
            self.index = replace(self.index, pts=self.index.pts[:num_frames])
            self.num_frames = num_frames

    @property
    def times(self) -> np.ndarray:
        """Seconds at which each frame is shown by the container's clock, float64 (num_frames,), as FFmpeg counts them.

        The clock starts with the first stream: a picture that begins 2 s after the sound is at 2 s.
        """
        pts, begin = self.index.pts, (self._container.start_time or 0) / av.time_base
        if self.index.timed:
            return pts * float(self._stream.time_base) - begin
        first = float((self._stream.start_time or 0) * (self._stream.time_base or 0))
        return max(first - begin, 0.0) + np.arange(self.num_frames) / self.fps

    @property
    def short_side(self) -> int:
        """Pixels of the shorter side; known without decoding a frame."""
        return min(self.index.pixel_size)

    @property
    def info(self) -> VideoInfo:
        """Describe the video. Decodes the first frame, which alone tells the rotation."""
        orientation = self._watched(self._find_orientation)
        width, height = orientation.displayed(self.index.pixel_size)
        return VideoInfo(
            num_frames=self.num_frames,
            fps=self.fps,
            width=width,
            height=height,
            codec=self.index.codec,
            container=self.index.container,
            rotation=orientation.rotation,
            keyframes=len(self.index.key_pts),
            pixel_aspect=self.index.pixel_aspect if orientation.rotation % 180 == 0 else 1 / self.index.pixel_aspect,
        )

    def read(self, indices: Sequence[int], size: int | tuple[int, int] | None = None) -> torch.Tensor:
        """Read frames ``indices`` (any order, repeats allowed) as uint8 (T, H, W, 3) RGB, as displayed.

        ``size``: None keeps the stored resolution, an integer sets the shorter side, a pair is (height, width).

        Raises:
            UnreadableVideo: a wanted frame is damaged, or decoding exceeds the time limit.
            IndexError: an index is outside the video.
        """
        numbers = [int(index) for index in indices]
        if not numbers or min(numbers) < 0 or max(numbers) >= self.num_frames:
            raise IndexError(f"{self.path}: frames {numbers} asked for, it has 0 .. {self.num_frames - 1}")
        # PyAV's reader looks at the clock itself, between packets; only what hangs inside one needs to be given up on.
        grace = GRACE if self.decoder == "pyav" else 0.0
        frames = self._watched(lambda: self._decode(numbers, size), grace)
        return torch.from_numpy(np.ascontiguousarray(frames))

    def _decode(self, numbers: list[int], size: int | tuple[int, int] | None) -> np.ndarray:
        pixels = self._target_size(size) if isinstance(size, int) else size
        if self.decoder != "pyav":
            read = read_torchcodec if self.decoder == "torchcodec" else read_decord
            try:
                return read(self.path, numbers, pixels, self._counted_frames)
            except UnreadableVideo:
                if not self._fall_back:
                    raise
                self.decoder = "pyav"
        reader = PyavReader(self.path, self._container, self._stream, self.index, self.timeout, self._seeks)
        with naming(self.path):
            frames = reader.read(numbers, pixels)
        self._seeks = reader.seeks
        return frames

    def _open(self) -> tuple[Any, Any, PacketIndex]:
        container, stream = open_container(self.path)
        try:
            return container, stream, index_packets(container, stream, self.path)
        except BaseException:
            container.close()
            raise

    def _is_unsuited(self) -> bool:
        """Tell whether the decoder errs on such files. Only PyAV mirrors frames; decord turns none in Matroska."""
        errs = torchcodec_errs if self.decoder == "torchcodec" else decord_errs
        if errs(self.index) or len(self._container.streams.video) > 1:
            return True
        try:
            mirrored, rotation = self._find_orientation()
        except UnreadableVideo:
            return True  # damaged at its start: for PyAV to tell
        return mirrored or (self.decoder == "decord" and rotation != 0 and "matroska" in self.index.container)

    def _find_orientation(self) -> Orientation:
        if self._orientation is None:
            self._orientation = find_orientation(self.path, self._container, self._stream, self.index)
        return self._orientation

    def _target_size(self, short_side: int) -> tuple[int, int]:
        width, height = self._find_orientation().displayed(self.index.pixel_size)
        scale = short_side / min(width, height)
        return max(1, round(height * scale)), max(1, round(width * scale))

    def _watched(self, work: Callable[[], Result], grace: float | None = None) -> Result:
        """Return ``work()``, given up on after the time limit and ``grace`` seconds."""
        if self._hung:
            raise UnreadableVideo(self.path, "an earlier read hangs")
        try:
            return call_with_timeout(work, self.timeout + (GRACE if grace is None else grace))
        except TimedOut:
            self._hung = True
        raise UnreadableVideo(self.path, f"decoding did not finish in {self.timeout:g} s (data.timeout)")
