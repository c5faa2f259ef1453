"""Video file -> frames: one door for every decoder. The only module that imports decord and torchcodec.

    with open_video(path) as video:
        frames = video.read([0, 32, 64])        # uint8 (T, H, W, 3), RGB, as displayed

Frame ``i`` is the i-th frame in display order of the file's best video stream, whatever decoder is used.

``auto`` reads the file's packet index (milliseconds) and takes decord where decord is known to return the right frames
as quickly as anyone; files with B-frames (PyAV need not decode most of those), open groups of pictures, edit lists,
AV1 and MPEG-TS, on which decord errs, hangs or lags, go to PyAV.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torchvision.transforms.v2 import functional as F

from stvideo.data.decode_pyav import PyavReader, frame_rotation
from stvideo.data.images import IMAGE_SUFFIXES, StillImage
from stvideo.data.packets import PacketIndex, UnreadableVideo, VideoInfo, index_packets, one_line, open_container
from stvideo.data.watchdog import TimedOut, call_with_timeout
from stvideo.errors import StvideoError, nearest

__all__ = ["DECODERS", "UnreadableVideo", "Video", "VideoInfo", "open_video", "probe", "read_frames"]

DECODERS = ("auto", "decord", "pyav", "torchcodec")
_DECORD_CODECS = frozenset({"h264", "hevc", "vp8", "vp9", "mpeg4"})


class Video:
    """An opened video; use it as a context manager and read from it as often as needed.

    Args:
        path: the file.
        decoder: one of `DECODERS`.
        timeout: seconds that reading may take in all before the video counts as unreadable.

    Raises:
        UnreadableVideo: the file is missing, no video, or damaged.
        StvideoError: the decoder is unknown or not installed.
    """

    def __init__(self, path: str | Path, decoder: str = "auto", timeout: float = 60.0) -> None:
        if decoder not in DECODERS:
            raise StvideoError(f"unknown decoder {decoder!r}{nearest(decoder, DECODERS)}: choose {', '.join(DECODERS)}")
        self.path, self.timeout = Path(path), timeout
        self._container, self._stream = open_container(path)
        try:
            self.index: PacketIndex = index_packets(self._container, self._stream, path)
        except BaseException:
            self._container.close()
            raise
        self.decoder = _choose(self.index) if decoder == "auto" else decoder
        self._decoder_given = decoder != "auto"
        self.num_frames = self.index.num_frames
        self.fps = self.index.fps
        self._rotation: int | None = None

    def __enter__(self) -> Video:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._container.close()

    @property
    def short_side(self) -> int:
        """Pixels of the shorter side; known without decoding a frame."""
        return min(self.index.pixel_size)

    @property
    def info(self) -> VideoInfo:
        """Everything known of the video. Decodes the first frame, which alone tells the rotation."""
        if self._rotation is None:
            self._rotation = frame_rotation(self.path, self._container, self._stream)
        width, height = self.index.pixel_size if self._rotation % 180 == 0 else self.index.pixel_size[::-1]
        return VideoInfo(
            num_frames=self.num_frames,
            fps=self.fps,
            width=width,
            height=height,
            codec=self.index.codec,
            container=self.index.container,
            rotation=self._rotation,
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
        pixels = self._target_size(size)
        frames = self._read_guarded(numbers, pixels) if self.decoder != "pyav" else None
        if frames is None:
            frames = PyavReader(self.path, self._container, self._stream, self.index, self.timeout).read(
                numbers, pixels
            )
        return torch.from_numpy(np.ascontiguousarray(frames))

    def _read_guarded(self, numbers: list[int], size: tuple[int, int] | None) -> np.ndarray | None:
        """By a decoder that may hang; None where ``auto`` goes on with PyAV because this one failed."""
        read = _read_decord if self.decoder == "decord" else _read_torchcodec
        try:
            return call_with_timeout(lambda: read(self.path, numbers, size, self.num_frames), self.timeout)
        except TimedOut:
            error = UnreadableVideo(self.path, f"{self.decoder} did not finish in {self.timeout:g} s (data.timeout)")
        except UnreadableVideo as failure:
            error = failure
        if self._decoder_given:
            raise error
        self.decoder = "pyav"
        return None

    def _target_size(self, size: int | tuple[int, int] | None) -> tuple[int, int] | None:
        if not isinstance(size, int):
            return size
        info = self.info
        scale = size / min(info.width, info.height)
        return max(1, round(info.height * scale)), max(1, round(info.width * scale))


Readable = Video | StillImage
"""What `open_video` gives: both have frames to read, and neither knows of the other."""


def open_video(path: str | Path, decoder: str = "auto", timeout: float = 60.0) -> Readable:
    """Open ``path`` for reading; see `Video`. An image file is a video of one frame."""
    if Path(path).suffix.lower() in IMAGE_SUFFIXES:
        return StillImage(path)
    return Video(path, decoder, timeout)


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


def _choose(index: PacketIndex) -> str:
    """decord, unless the file is of a kind on which it is wrong, hangs or is slower than PyAV."""
    unsafe = index.open_gop or index.late_start or not index.timed or "mpegts" in index.container
    if unsafe or index.reordered or index.codec not in _DECORD_CODECS or not decord_installed():
        return "pyav"
    return "decord"


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
    if not decord_installed():
        raise StvideoError("decord is not installed here: pip install decord, or set data.decoder=pyav")
    try:
        return _decord_frames(path, indices, size, num_frames)
    except (RuntimeError, _decord.DECORDError) as error:
        reason = one_line(error)
    if size is not None and "size must exactly match" in reason:
        # decord cannot scale to some widths (of 24, 48 or 72 pixels, for one).
        return _scale(_read_decord(path, indices, None, num_frames), size)
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
    frames: np.ndarray = reader.get_batch(unique).asnumpy()
    reader.seek(0)  # without this, memory stays with the process
    del reader
    return frames if np.array_equal(unique, indices) else frames[places]


def torchcodec_problem() -> str | None:
    """Why torchcodec cannot be used here, or None if it can."""
    try:
        from torchcodec.decoders import VideoDecoder  # noqa: F401
    except ImportError:
        return "torchcodec is not installed: pip install torchcodec, or set data.decoder=auto"
    except (OSError, RuntimeError):
        return "torchcodec needs FFmpeg 4 to 9 as shared libraries: install FFmpeg, or set data.decoder=auto"
    return None


def _read_torchcodec(path: Path, indices: list[int], size: tuple[int, int] | None, num_frames: int) -> np.ndarray:
    problem = torchcodec_problem()
    if problem:
        raise StvideoError(problem)
    from torchcodec.decoders import VideoDecoder

    try:
        decoder = VideoDecoder(str(path.absolute()), dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact")
        if len(decoder) != num_frames:
            raise UnreadableVideo(path, f"torchcodec counts {len(decoder)} frames of {num_frames}")
        frames = decoder.get_frames_at(indices=indices).data
    except (RuntimeError, ValueError) as error:
        if isinstance(error, UnreadableVideo):
            raise
        raise UnreadableVideo(path, one_line(error)[-200:]) from None
    return frames.numpy() if size is None else _scale(frames.numpy(), size)


def _scale(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Frames (T, H, W, 3) uint8 scaled to ``size`` = (height, width)."""
    pictures = torch.from_numpy(frames).permute(0, 3, 1, 2)
    return F.resize(pictures, list(size), antialias=True).permute(0, 2, 3, 1).numpy()
