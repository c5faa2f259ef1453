"""Encode one video file anew: a smaller H.264 one that is quick to read from anywhere.

`transcode` is what data_tools/resize.py runs in its worker processes.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.video.reformatter import ColorRange

from stvideo.core.errors import StvideoError
from stvideo.data.video.display import Display, quarter_turns
from stvideo.data.video.packets import PacketIndex, UnreadableVideo, indexed, one_line
from stvideo.data.video.pyav import frames_in_order
from stvideo.preparation.inspection import USABLE_SHARE, promised_frames, shortened
from stvideo.preparation.jobs import Alive, Failure

ENCODER = "libx264"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


class Recipe(NamedTuple):
    """How videos are encoded: shorter side in pixels (never more than it was), frames from one key frame to the next,
    and x264's constant rate factor (lower is better and larger)."""

    short_side: int
    keyframes: int
    crf: float

    def checked(self) -> Recipe:
        """Return it as it is; raises `StvideoError`, naming the setting, if no video can be encoded so."""
        if self.short_side < 16 or self.short_side % 2:
            raise StvideoError(f"short_side={self.short_side}: expected an even number of pixels, at least 16")
        if not 1 <= self.keyframes <= 1000:
            raise StvideoError(f"keyframes={self.keyframes}: expected 1 (key frames only) to 1000 frames")
        if not 0 <= self.crf <= 51:
            raise StvideoError(f"crf={self.crf:g}: expected 0 (lossless) to 51 (worst)")
        return self

    def __str__(self) -> str:
        return f"short side {self.short_side}, key frame spacing {self.keyframes}, crf {self.crf:g}"


class Encoding(NamedTuple):
    """A ``source`` to encode into ``target``, which may be overwritten."""

    source: str
    target: str
    recipe: Recipe


@dataclass(frozen=True)
class Transcoded:
    """What was written; ``note`` says what is not as in the original."""

    frames: int
    width: int
    height: int
    bytes: int
    note: str = ""


def encoder_problem() -> str | None:
    """Say why videos cannot be encoded here; None if they can."""
    try:
        av.codec.Codec(ENCODER, "w")
    except av.error.FFmpegError:
        return (
            f"the installed PyAV {av.__version__} cannot encode H.264 ({ENCODER} is missing): pip install --upgrade av"
        )
    return None


def target_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Choose (width, height) with the shorter side at ``short_side``, never larger than before, both even."""
    scale = min(1.0, short_side / min(width, height))
    sides = [max(2, min(2 * round(side * scale / 2), side // 2 * 2)) for side in (width, height)]
    return sides[0], sides[1]


def transcode(job: Encoding, alive: Alive) -> Transcoded | Failure:
    """Write ``job.target``; a problem with the source is a `Failure` of kind "error", one with the disk "full"."""
    target = Path(job.target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        return _transcode(Path(job.source), target, job.recipe, alive)
    except UnreadableVideo as error:
        return Failure("error", error.reason)
    except OSError as error:
        return Failure("full" if error.errno in _NO_ROOM else "error", one_line(error))


def _transcode(source: Path, target: Path, recipe: Recipe, alive: Alive) -> Transcoded:
    with indexed(source) as (_, stream, index):
        promised = promised_frames(source, stream, index)
        count, (width, height), problem = _encode(source, stream, index, target, recipe, alive)
    note = ""
    if count < promised:
        note = shortened(count, promised, problem)
        if count < USABLE_SHARE * promised:
            raise UnreadableVideo(source, note if count else problem or "no frame can be decoded")
    _check_written(target, count)
    return Transcoded(count, width, height, target.stat().st_size, note)


def _encode(
    path: Path, source: Any, index: PacketIndex, target: Path, recipe: Recipe, alive: Alive
) -> tuple[int, tuple[int, int], str | None]:
    """Encode the whole frames of ``path`` up to the first damage with their time stamps, the first at 0.

    Returns how many there were, their new size, and what the damage is.
    """
    rate = Fraction(index.fps).limit_denominator(1001)
    time_base = source.time_base if index.timed and source.time_base else 1 / rate
    ticks = index.pts - index.pts[0] if index.timed else np.arange(index.num_frames)
    durations = iter(_durations(ticks, float(1 / (rate * time_base))).tolist())
    display = Display()
    stream: Any = None
    count, size, problem = 0, (0, 0), None

    with av.open(str(target), "w", format="mp4", options={"movflags": "+faststart"}) as container:

        def write(packets: list[Any]) -> None:
            for packet in packets:  # in the order of the frames, for there are no B-frames
                packet.duration = next(durations)
                container.mux(packet)

        try:
            for number, frame in frames_in_order(path, index, alive):
                if number < 0:
                    continue
                if number != count or frame.is_corrupt:
                    break
                turns = quarter_turns(frame)
                if stream is None:
                    shown = display.orientation(frame).displayed((frame.width, frame.height))
                    size = target_size(*shown, recipe.short_side)
                    stream = _add_stream(container, rate, time_base, size, recipe)
                    _keep_colors(source.codec_context, stream.codec_context)
                picture = _scaled_and_turned(display, frame, turns, size)
                picture.pict_type = av.video.frame.PictureType.NONE  # what the source's encoder chose
                picture.time_base, picture.pts = time_base, int(ticks[count])
                write(stream.encode(picture))
                count += 1
        except UnreadableVideo as error:
            problem = error.reason
        if stream is not None:
            write(stream.encode(None))
    return count, size, problem


def _durations(ticks: np.ndarray, per_frame: float) -> np.ndarray:
    """Compute how long each frame is shown; the last one so that the average rate is the source's, where possible."""
    usual = max(1, round(per_frame))
    last = round(len(ticks) * per_frame) - int(ticks[-1])
    return np.append(np.diff(ticks), last if 0 < last <= 4 * usual else usual)


def _add_stream(container: Any, rate: Fraction, time_base: Fraction, size: tuple[int, int], recipe: Recipe) -> Any:
    """Open an H.264 stream without B-frames, with closed groups of pictures of one length.

    Without B-frames frames are stored in the order in which they are shown, which every decoder handles right, and to
    show one frame only those from its key frame on are decoded. ``fastdecode`` leaves out what costs the decoder most
    (arithmetic coding, deblocking) for a tenth more bytes.
    """
    x264 = f"keyint={recipe.keyframes}:min-keyint={recipe.keyframes}:scenecut=0:open-gop=0:log-level=none"
    options = {
        "crf": f"{recipe.crf:g}",
        "preset": "veryfast",
        "tune": "fastdecode",
        "bf": "0",
        "threads": "1",
        "x264-params": x264,
    }
    stream = container.add_stream(ENCODER, rate=rate, options=options)
    stream.width, stream.height = size
    stream.pix_fmt = "yuv420p"
    stream.codec_context.time_base = time_base
    return stream


def _keep_colors(source: Any, target: Any) -> None:
    """Say of the new file's colours what the old one said, so that they are shown alike; full range becomes limited."""
    for name in ("colorspace", "color_primaries", "color_trc", "color_range"):
        setattr(target, name, getattr(source, name))
    if source.color_range == ColorRange.JPEG:
        target.color_range = ColorRange.MPEG


def _scaled_and_turned(display: Display, original: Any, turns: int, size: tuple[int, int]) -> Any:
    width, height = size if turns % 2 == 0 else size[::-1]
    frame = display.reformat(
        original,
        width=width,
        height=height,
        format="yuv420p",
        interpolation="BICUBIC",
        dst_color_range=ColorRange.MPEG if original.color_range == ColorRange.JPEG else None,
    )
    flip = -1 if display.is_mirrored(original) else 1
    if not turns and flip == 1:
        return frame
    planes = frame.to_ndarray().ravel()
    full, half = width * height, width * height // 4
    luma, blue, red = planes[:full], planes[full : full + half], planes[full + half :]
    turned = [np.rot90(luma.reshape(height, width)[::flip], turns).ravel()]
    turned += [np.rot90(plane.reshape(height // 2, width // 2)[::flip], turns).ravel() for plane in (blue, red)]
    stacked = np.concatenate(turned).reshape(size[1] * 3 // 2, size[0])
    return av.VideoFrame.from_ndarray(stacked, format="yuv420p")


def _check_written(target: Path, frames: int) -> None:
    """Check that the file just written holds so many frames, in order and in closed groups; else raises."""
    with indexed(target) as (_, _, index):
        pass
    if index.num_frames != frames or not index.timed or index.reordered or index.late_start:
        raise UnreadableVideo(target, f"what was written has {index.num_frames} frames instead of {frames}")
