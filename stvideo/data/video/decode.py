"""Video file -> frames: one door for every decoder. The only module that imports decord.

    with open_video(path) as video:
        frames = video.read([0, 32, 64])        # uint8 (T, H, W, 3), RGB, as displayed

Frame ``i`` is the i-th frame in display order of the file's best video stream, whatever decoder is used.

``decord`` and ``torchcodec`` come first where they are asked for; files on which they are known to err, hang or differ
(open groups of pictures, edit lists, MPEG-TS, AV1 and others, told from the packets in milliseconds) go to PyAV.
``auto`` is PyAV for every file: its reader (`decode_pyav`) decodes only what the wanted frames need, so no other was
found quicker on single frames, and it reports damage where decord shows the last good frame again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import torch

from stvideo.core.errors import StvideoError, nearest
from stvideo.data.clips.transforms import scale_frames
from stvideo.data.video.display import Orientation
from stvideo.data.video.images import IMAGE_SUFFIXES, StillImage
from stvideo.data.video.packets import PacketIndex, UnreadableVideo, VideoInfo, index_packets, one_line, open_container
from stvideo.data.video.pyav import PyavReader, find_orientation
from stvideo.data.video.torchcodec import read_torchcodec, torchcodec_errs, torchcodec_problem
from stvideo.data.video.watchdog import TimedOut, call_with_timeout

__all__ = ["DECODERS", "UnreadableVideo", "Video", "VideoInfo", "open_video", "probe", "read_frames"]

DECODERS = ("auto", "decord", "pyav", "torchcodec")
GRACE = 2.0  # seconds beyond the time limit after which a decoder that checks its time itself counts as hung
_DECORD_CODECS = frozenset({"h264", "hevc", "vp8", "vp9", "mpeg4"})
_DECORD_CONTAINERS = frozenset({"mp4", "matroska", "webm", "avi", "flv"})

Result = TypeVar("Result")


class Video:
    """An opened video; use it as a context manager and read from it as often as needed.

    Args:
        path: the file.
        decoder: one of `DECODERS`.
        timeout: seconds that opening, and every read, may take before the video counts as unreadable.
        fall_back: go to PyAV where the decoder is known to err on such files, or fails.

    Raises:
        UnreadableVideo: the file is missing, no video, or damaged.
        StvideoError: the decoder is unknown or not installed.
    """

    def __init__(self, path: str | Path, decoder: str = "auto", timeout: float = 60.0, fall_back: bool = False) -> None:
        _check_decoder(decoder)
        self.path, self.timeout, self._fall_back = Path(path), timeout, fall_back
        self._hung = False
        self._orientation: Orientation | None = None
        self._container, self._stream, self.index = self._watched(self._open, timeout + GRACE)
        self.num_frames = self._counted_frames = self.index.num_frames
        self.fps = self.index.fps
        self.decoder = "pyav" if decoder == "auto" else decoder
        if fall_back and self.decoder != "pyav" and self._watched(self._is_unsuited, timeout + GRACE):
            self.decoder = "pyav"

    def __enter__(self) -> Video:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        if not self._hung:  # else a thread that nobody waits for is still busy with it
            self._container.close()

    def shorten(self, num_frames: int) -> None:
        """Leave out what comes after the first ``num_frames`` frames."""
        if num_frames < self.num_frames:
            self.index = replace(self.index, pts=self.index.pts[:num_frames])
            self.num_frames = num_frames

    @property
    def times(self) -> np.ndarray:
        """Seconds from the first frame to each frame, float64 (num_frames,)."""
        pts = self.index.pts
        if not self.index.timed:
            return np.arange(self.num_frames) / self.fps
        return (pts - pts[0]) * float(self._stream.time_base)

    @property
    def short_side(self) -> int:
        """Pixels of the shorter side; known without decoding a frame."""
        return min(self.index.pixel_size)

    @property
    def info(self) -> VideoInfo:
        """Everything known of the video. Decodes the first frame, which alone tells the rotation."""
        orientation = self._watched(self._find_orientation, self.timeout + GRACE)
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
        )

    def read(self, indices: Sequence[int], size: int | tuple[int, int] | None = None) -> torch.Tensor:
        """Frames ``indices`` (any order, repeats allowed) as uint8 (T, H, W, 3) RGB.

        ``size``: None keeps the stored resolution, an integer sets the shorter side, a pair is (height, width).

        Raises:
            UnreadableVideo: a wanted frame is damaged, or decoding exceeds the time limit.
            IndexError: an index is outside the video.
        """
        numbers = [int(index) for index in indices]
        if not numbers or min(numbers) < 0 or max(numbers) >= self.num_frames:
            raise IndexError(f"{self.path}: frames {numbers} asked for, it has 0 .. {self.num_frames - 1}")
        # PyAV's reader looks at the clock itself, between packets; only what hangs inside one needs to be given up on.
        limit = self.timeout + GRACE if self.decoder == "pyav" else self.timeout
        frames = self._watched(lambda: self._decode(numbers, size), limit)
        return torch.from_numpy(np.ascontiguousarray(frames))

    def _decode(self, numbers: list[int], size: int | tuple[int, int] | None) -> np.ndarray:
        pixels = self._target_size(size) if isinstance(size, int) else size
        if self.decoder != "pyav":
            read = read_torchcodec if self.decoder == "torchcodec" else _read_decord
            try:
                return read(self.path, numbers, pixels, self._counted_frames)
            except UnreadableVideo:
                if not self._fall_back:
                    raise
                self.decoder = "pyav"
        return PyavReader(self.path, self._container, self._stream, self.index, self.timeout).read(numbers, pixels)

    def _open(self) -> tuple[Any, Any, PacketIndex]:
        container, stream = open_container(self.path)
        try:
            return container, stream, index_packets(container, stream, self.path)
        except BaseException:
            container.close()
            raise

    def _is_unsuited(self) -> bool:
        if self.decoder == "torchcodec":
            return torchcodec_errs(self.index) or self._is_shown_wrongly()
        return _decord_errs(self.index) or self._is_shown_wrongly()

    def _is_shown_wrongly(self) -> bool:
        """Only PyAV's reader mirrors frames, and decord's FFmpeg does not know of rotation in Matroska files."""
        try:
            mirrored, rotation = self._find_orientation()
        except UnreadableVideo:
            return True  # damaged at its start: for PyAV to tell
        return mirrored or (self.decoder == "decord" and rotation != 0 and "matroska" in self.index.container)

    def _find_orientation(self) -> Orientation:
        if self._orientation is None:
            self._orientation = find_orientation(self.path, self._container, self._stream)
        return self._orientation

    def _target_size(self, short_side: int) -> tuple[int, int]:
        width, height = self._find_orientation().displayed(self.index.pixel_size)
        scale = short_side / min(width, height)
        return max(1, round(height * scale)), max(1, round(width * scale))

    def _watched(self, work: Callable[[], Result], limit: float) -> Result:
        """``work()``, given up on after ``limit`` seconds."""
        if self._hung:
            raise UnreadableVideo(self.path, "an earlier read hangs")
        try:
            return call_with_timeout(work, limit)
        except TimedOut:
            self._hung = True
        raise UnreadableVideo(self.path, f"decoding did not finish in {self.timeout:g} s (data.timeout)")


Readable = Video | StillImage
"""What `open_video` gives: both have frames to read, and neither knows of the other."""


def open_video(
    path: str | Path, decoder: str = "auto", timeout: float = 60.0, num_frames: int | None = None
) -> Readable:
    """Open ``path`` for reading; see `Video`. An image file is a video of one frame.

    ``decoder`` comes first; where it is known to err on such files, or fails, PyAV reads them.

    ``num_frames``: only so many from the start on can be decoded, whatever the file says.
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
    """What is known of a video file; raises `UnreadableVideo`."""
    with open_video(path) as video:
        return video.info


def read_frames(
    path: str | Path, indices: Sequence[int], size: int | tuple[int, int] | None = None, decoder: str = "auto"
) -> torch.Tensor:
    """Frames ``indices`` of ``path`` as uint8 (T, H, W, 3) RGB; see `Video.read`."""
    with open_video(path, decoder) as video:
        return video.read(indices, size)


def _check_decoder(decoder: str) -> None:
    """Raises `StvideoError` unless ``decoder`` is known and installed."""
    if decoder not in DECODERS:
        raise StvideoError(f"unknown decoder {decoder!r}{nearest(decoder, DECODERS)}: choose {', '.join(DECODERS)}")
    if decoder == "decord" and not decord_installed():
        raise StvideoError("decord is not installed here: pip install decord, or set data.decoder=auto")
    problem = torchcodec_problem() if decoder == "torchcodec" else None
    if problem:
        raise StvideoError(problem)


def _decord_errs(index: PacketIndex) -> bool:
    """Whether decord is known to return wrong frames of such a file, to hang on it, or not to open it."""
    unsafe = index.open_gop or index.late_start or not index.timed or index.codec not in _DECORD_CODECS
    return unsafe or _DECORD_CONTAINERS.isdisjoint(index.container.split(","))


_decord: Any = None


def decord_installed() -> bool:
    """Whether decord can be imported here; it has no wheels for some platforms."""
    global _decord
    if _decord is None:
        try:
            import decord

            decord.logging.set_level(decord.logging.QUIET)  # its FFmpeg writes to stderr on its own
            _decord = decord
        except (ImportError, OSError):
            _decord = False
    return bool(_decord)


def _read_decord(path: Path, indices: list[int], size: tuple[int, int] | None, num_frames: int) -> np.ndarray:
    try:
        return _decord_frames(path, indices, size, num_frames)
    except (RuntimeError, UnicodeEncodeError, _decord.DECORDError) as error:  # it takes names in UTF-8 only
        reason = one_line(error)
    if size is not None and "size must exactly match" in reason:
        # decord cannot scale to some widths (of 24, 48 or 72 pixels, for one).
        return scale_frames(_read_decord(path, indices, None, num_frames), size)
    raise UnreadableVideo(path, f"decord: {reason[-160:]}")


def _decord_frames(path: Path, indices: list[int], size: tuple[int, int] | None, num_frames: int) -> np.ndarray:
    height, width = size or (-1, -1)
    # The global bridge is left alone (fork would inherit it); one thread is the fastest per CPU second.
    reader = _decord.VideoReader(str(path.absolute()), width=width, height=height, num_threads=1)
    if reader.get_frame_timestamp(0)[0] < 0:
        raise UnreadableVideo(path, "decord would hang on it (cut without re-encoding): set data.decoder=auto")
    if len(reader) != num_frames:
        raise UnreadableVideo(path, f"decord counts {len(reader)} frames of {num_frames}: set data.decoder=auto")
    unique, places = np.unique(np.asarray(indices), return_inverse=True)
    batch = reader.get_batch(unique)
    frames: np.ndarray = batch.asnumpy() if hasattr(batch, "asnumpy") else np.asarray(batch)  # as others set the bridge
    reader.seek(0)  # without this, memory stays with the process
    del reader
    return frames if np.array_equal(unique, indices) else frames[places]
