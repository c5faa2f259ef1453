"""Read what a video file holds from its packets, without decoding them.

Containers lie about their length, so the frames are counted: one pass over the packets gives every frame's time stamp,
where decoding may start, and what a decoder has to be careful with. The pass costs about 3 ms for a ten-second clip.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition

from stvideo.core.errors import StvideoError
from stvideo.data.video.formats import CONTAINERS
from stvideo.data.video.shown import ShownFrames

# Only local files are ever read: a playlist saved as .mp4 must not make a worker open a network address.
OPEN_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": ",".join(CONTAINERS)}
# What PyAV raises on damaged files: FFmpeg's errors, and now and then one of Python's.
DAMAGE = (av.FFmpegError, OSError, ValueError, LookupError, ArithmeticError, RuntimeError, MemoryError)
ENCRYPTED = "it is encrypted (as streaming services do): a decrypted copy is needed"
MAX_FRAMES = 10_000_000  # more is a damaged time line, not a video
MAX_FPS = 100_000  # of the fastest cameras
_TEXT_STARTS = (b"<!doctype", b"<html", b"<?xml", b"#extm3u", b"{")
_WITH_DISPLAY_TIMES = frozenset({"mp4", "matroska", "webm", "flv", "mpegts", "mpeg"})


class UnreadableVideo(StvideoError):
    """A video (or the part of it that was asked for) cannot be decoded; says which file and why."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"{path}: unreadable video: {reason}")
        self.path = str(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.path, self.reason)  # errors cross process borders by pickling


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video: ``width`` and ``height`` in pixels of its upright frames, after ``rotation`` (degrees).

    ``pixel_aspect`` is width / height of one of these pixels, 1 unless the video is to be shown wider or taller.
    """

    num_frames: int
    fps: float
    width: int
    height: int
    codec: str
    container: str
    rotation: int = 0
    keyframes: int = 1
    pixel_aspect: Fraction = Fraction(1)

    @property
    def display_size(self) -> tuple[int, int]:
        """(width, height) with square pixels, for people; models get frames as they are stored."""
        return max(1, round(self.width * self.pixel_aspect)), self.height

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.num_frames / self.fps


@dataclass(frozen=True)
class PacketIndex:
    """Where the frames of a video are.

    Attributes:
        pts: time stamps of the frames in display order, int64, in units of ``time_base`` seconds.
        key_pts: display time stamps of the frames at which decoding may start, rising.
        reordered: frames are stored in another order than they are displayed (B-frames).
        open_gop: some frame shown before a key frame refers to the group before it; seeking must go one group back.
        late_start: the container hides frames before the first one shown (an edit list: cut without re-encoding).
        timed: every frame has a time stamp of its own; if not, frames can only be counted from the start.
        pixel_size: (width, height) as stored, before any rotation.
        pixel_aspect: width / height of a pixel as stored.
    """

    pts: np.ndarray
    key_pts: np.ndarray
    fps: float
    pixel_size: tuple[int, int]
    codec: str
    container: str
    reordered: bool
    open_gop: bool
    late_start: bool
    timed: bool
    pixel_aspect: Fraction = Fraction(1)

    @property
    def num_frames(self) -> int:
        return len(self.pts)


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Turn what PyAV raises on damaged files into `UnreadableVideo`."""
    try:
        yield
    except UnreadableVideo:
        raise
    except PermissionError:  # the file was opened before, so it is not its owner's permission that is missing
        raise UnreadableVideo(path, ENCRYPTED) from None
    except DAMAGE as error:
        raise UnreadableVideo(path, one_line(error)) from None


def check_file(path: str | Path) -> Path:
    """Return ``path`` if it is a non-empty readable file and no text page; raises `UnreadableVideo`."""
    path = Path(path)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise UnreadableVideo(path, "this is a folder, not a file")
        if not stat.S_ISREG(mode):  # reading a pipe would wait for ever
            raise UnreadableVideo(path, "this is a pipe or a device, not a file")
        with path.open("rb") as file:
            head = file.read(64).lstrip().lower()
    except FileNotFoundError:
        raise UnreadableVideo(path, "no such file") from None
    except OSError as error:
        raise UnreadableVideo(path, f"cannot be opened ({error.strerror})") from None
    if not head:
        raise UnreadableVideo(path, "the file is empty")
    if head.startswith(_TEXT_STARTS):
        raise UnreadableVideo(path, "this is a text or web page, not a video (a failed download?)")
    return path


def open_container(path: str | Path) -> tuple[Any, Any]:
    """Open ``path`` with PyAV: (container, its largest video stream set to one decoding thread)."""
    path = check_file(path)
    with naming(path):
        try:
            # "file:" keeps FFmpeg from reading a name such as "concat:a.mp4" as a protocol of its own.
            container: Any = av.open(f"file:{path}", options=OPEN_OPTIONS, metadata_errors="ignore")
        except av.error.ArgumentError:
            raise UnreadableVideo(path, "this is no video file, or damaged at its start") from None
        try:
            stream = largest_stream(container.streams.video)
            if stream is None:
                raise UnreadableVideo(path, "it has no video stream")
            if stream.disposition & Disposition.attached_pic:
                raise UnreadableVideo(path, "it has no video stream, only a cover picture")
            if stream.codec_context is None:
                raise UnreadableVideo(path, "its video codec is unknown to the installed FFmpeg")
            stream.thread_type = "NONE"
            stream.codec_context.thread_count = 1
        except BaseException:
            container.close()
            raise
    return container, stream


def largest_stream(streams: Sequence[Any]) -> Any:
    """Choose the video stream of most pixels, the first of several; a cover picture only if there is nothing else."""

    def size(stream: Any) -> tuple[bool, int]:
        context = stream.codec_context
        cover = bool(stream.disposition & Disposition.attached_pic)
        return not cover, context.width * context.height if context is not None else 0

    return max(streams, key=size, default=None)


@contextmanager
def indexed(path: str | Path) -> Iterator[tuple[Any, Any, PacketIndex]]:
    """Open ``path`` and index it for a while: (container, its largest video stream, what the packets say)."""
    container, stream = open_container(path)
    with container:
        yield container, stream, index_packets(container, stream, path)


def index_packets(container: Any, stream: Any, path: str | Path) -> PacketIndex:
    """Read every packet of ``stream`` once and note its times; raises `UnreadableVideo`.

    Frames that no decoder shows are not counted: those before the first key frame, those an edit list hides, and hidden
    reference frames.
    """
    pts: list[int] = []
    key_pts: list[int] = []
    leading: set[int] = set()
    timed, reordered, open_gop, late_start = True, False, False, False
    newest = newest_key = None
    packets = 0
    context = stream.codec_context
    shown_frames = ShownFrames(context.name, context.extradata)
    with naming(path):
        for packet in container.demux(stream):
            if not packet.size:
                continue
            if packet.has_sidedata("encryption_info"):
                raise UnreadableVideo(path, ENCRYPTED)
            packets, shown = packets + 1, shown_frames(packet)
            time = packet.pts
            if time is None:
                timed = timed and not shown
                time = packet.dts if packet.dts is not None else len(pts)
            if packet.is_keyframe:
                newest_key = time
                key_pts.append(time)
            elif newest_key is None or not shown:
                continue
            elif time < newest_key:
                open_gop = True
                if len(key_pts) == 1:
                    leading.add(time)
                    continue
            reordered = reordered or (newest is not None and time < newest)
            newest = time if newest is None else max(newest, time)
            if packet.is_discard:
                late_start = True
            else:
                pts += [time] * shown
                if len(pts) > MAX_FRAMES:
                    raise UnreadableVideo(path, f"it claims more than {MAX_FRAMES} frames")
        if leading:  # most refer to a group that is not in the file, some to their key frame alone
            pts += _shown_before(path, key_pts[0]) & leading
    if not pts:
        raise UnreadableVideo(path, "it holds no frames")
    times = np.sort(np.asarray(pts, dtype=np.int64))
    timed = timed and bool(np.all(np.diff(times) > 0)) and not _in_disguise(container, context, reordered)
    if not context.width or not context.height:
        raise UnreadableVideo(path, "its frame size is unknown (damaged header)")
    return PacketIndex(
        pts=times,
        key_pts=np.sort(np.asarray(key_pts, dtype=np.int64)),
        fps=_frame_rate(stream, times, hidden=len(times) < packets and not late_start),
        pixel_size=shown_frames.picture_size or (context.width, context.height),
        codec=context.name,
        container=container.format.name,
        reordered=reordered,
        open_gop=open_gop,
        late_start=late_start,
        timed=timed,
        pixel_aspect=Fraction(stream.sample_aspect_ratio or 1),
    )


def _in_disguise(container: Any, context: Any, reordered: bool) -> bool:
    """Whether time stamps may be times of decoding: then they say nothing about the order of display.

    AVI stores no others, and they stay what they are when packets are copied into another container. What FFmpeg makes
    of them is wrong for MPEG-4 whose B-frames share packets with others, as XviD and DivX write them.
    """
    if not context.has_b_frames and not reordered:
        return False
    kinds = set(container.format.name.split(","))
    if not reordered and context.name not in ("mpeg1video", "mpeg2video"):  # which always make room for B-frames
        return True
    return context.name == "mpeg4" or _WITH_DISPLAY_TIMES.isdisjoint(kinds)


def _shown_before(path: str | Path, time: int) -> set[int]:
    """Time stamps of the frames that decoding from the start of the file shows before ``time``."""
    times: set[int] = set()
    container, stream = open_container(path)
    with container:
        for packet in container.demux(stream):
            decoded: list[Any] = []
            with suppress(av.error.InvalidDataError):
                decoded = packet.decode()
            for frame in decoded:
                if frame.pts is None or frame.pts >= time:
                    return times
                if not frame.is_corrupt:
                    times.add(frame.pts)
    return times


def _frame_rate(stream: Any, pts: np.ndarray, hidden: bool) -> float:
    """Find the frames per second: the container's if plausible, else counted from the time stamps.

    It may have counted ``hidden`` frames as well.
    """
    rate = float(stream.average_rate or stream.guessed_rate or 0)
    seconds = float((pts[-1] - pts[0]) * (stream.time_base or 0))
    counted = (len(pts) - 1) / seconds if seconds > 0 else 0.0
    if (hidden or not 0 < rate < 1000) and not 0.99 * rate < counted < 1.01 * rate:
        rate = counted  # headers without a rate show the ticks of their clock
    return rate if 0 < rate <= MAX_FPS else 30.0


def one_line(error: Exception) -> str:
    """Quote FFmpeg's own words, on one line, without the path."""
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split()) or type(error).__name__
