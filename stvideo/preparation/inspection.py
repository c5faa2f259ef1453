"""Find out what one video file really holds: every frame decoded once, and random access compared with that.

`inspect` is what data_tools/verify.py runs in its worker processes.
"""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np

from stvideo.data.lists.manifest import VideoRow
from stvideo.data.video.decode import Video
from stvideo.data.video.decord import decord_problem
from stvideo.data.video.display import Display, Orientation
from stvideo.data.video.formats import IMAGE_SUFFIXES
from stvideo.data.video.images import StillImage
from stvideo.data.video.packets import PacketIndex, UnreadableVideo, indexed, naming, open_container
from stvideo.data.video.pyav import frames_in_order, is_intra
from stvideo.preparation.jobs import Alive

USABLE_SHARE = 0.5  # of its frames that a damaged video must show from the start on to be worth keeping
_WHOLE_SHARE = 0.9  # of the duration it states that a whole video has; statements are not exact
_CLIP_FRAMES = 8
_CLIP_STRIDE = 32
_KEY_FRAMES = 3  # whose surroundings are looked at
_COMPARED_PIXELS = 65_536  # per frame, so that 4K videos fit into memory
_NO_LIMIT = 1e6  # seconds; the process that waits for us has its own
_DECORD_SECONDS = 10.0  # that decord may take at least; it gets five times what decoding the whole file took


class Inspection(NamedTuple):
    """A file to look at: ``root / path``, by decord as well or not."""

    root: str
    path: str
    by_decord: bool = True


class _Decoded(NamedTuple):
    """What decoding a file from start to end gave."""

    leading: int  # frames before the first one that cannot be shown
    orientation: Orientation
    pixels: dict[int, np.ndarray]  # of the frames to compare
    problem: str | None
    seconds: float
    lying_keys: int  # frames marked as key frames that were not decoded without others


def inspect(job: Inspection, alive: Alive) -> VideoRow:
    """Decode ``job.path`` and describe it; every problem with the file ends up in the row."""
    path = Path(job.root) / job.path
    size, modified = file_state(path)
    row = VideoRow(path=job.path, status="unusable", bytes=size, modified=modified)
    try:
        if path.suffix.lower() in IMAGE_SUFFIXES:
            info = StillImage(path).info
            return replace(
                row, status="ok", frames=info.num_frames, listed=info.num_frames, fps=info.fps, width=info.width,
                height=info.height, codec=info.codec, container=info.container, keyframes=1, key_gap_median=1,
                key_gap_max=1, decoder="pillow",
            )  # fmt: skip
        return _inspect_video(path, row, job.by_decord, alive)
    except UnreadableVideo as error:
        return replace(row, reason=error.reason)
    except MemoryError:
        return replace(row, reason="its frames do not fit into memory")


def not_by_decord(row: VideoRow, verdict: str, reason: str) -> VideoRow:
    """Describe a file on which decord errs: still usable, by another decoder."""
    status = "exact" if row.status == "ok" else row.status
    reason = "; ".join(filter(None, [row.reason, reason]))
    return replace(row, status=status, decord=verdict, decoder="pyav", reason=reason)


def promised_frames(path: Path, stream: Any, index: PacketIndex) -> int:
    """Count the frames that there should be: more than ``index`` has if an MP4 file was cut short behind its index."""
    # MP4's index leaves out whole groups that an edit list hides, as trimming on a phone does.
    entries = len(stream.index_entries) if "mp4" in index.container.split(",") else 0
    if entries <= index.num_frames:
        return index.num_frames
    container, stream = open_container(path)  # afresh: not every container can seek to its start
    with container, naming(path):
        stored = sum(1 for packet in container.demux(stream) if packet.size)  # with those that are not shown
    return index.num_frames + max(entries - stored, 0)


def claimed_frames(container: Any, stream: Any, index: PacketIndex) -> int:
    """Count the frames that the header claims; it may be written before they are there, or count those of the sound."""
    if len(container.streams) == 1 and container.duration and index.timed and stream.time_base:
        # Sound may go on after the picture, so the duration of the whole says something where there is no sound.
        shown = float((index.pts[-1] - index.pts[0]) * stream.time_base) + 1 / index.fps
        claimed = container.duration / av.time_base
        if shown < _WHOLE_SHARE * claimed:
            return round(index.num_frames * claimed / shown)
    kinds = index.container.split(",")
    return 0 if "mp4" in kinds or index.late_start else stream.frames


def shortened(decoded: int, listed: int, problem: str | None) -> str:
    """Say of a video that only its first ``decoded`` frames can be shown."""
    return f"only the first {decoded} of {listed} frames can be decoded" + (f" ({problem})" if problem else "")


def file_state(path: Path) -> tuple[int, int]:
    """Return (bytes, time of the last change in nanoseconds) of a file, by which it is recognised; zeros if missing."""
    try:
        state = path.stat()
    except OSError:
        return 0, 0
    return state.st_size, state.st_mtime_ns


def _inspect_video(path: Path, row: VideoRow, by_decord: bool, alive: Alive) -> VideoRow:
    with indexed(path) as (container, stream, index):
        row = _describe(row, index, stream)
        listed = promised_frames(path, stream, index)
        notes = _notes(container, stream, index) if listed == index.num_frames else []
    clips = sampled_clips(index)
    decoded = _decode_all(path, index, {number for clip in clips for number in clip}, alive)
    if not decoded.leading:
        raise UnreadableVideo(path, decoded.problem or "no frame can be decoded")
    width, height = decoded.orientation.displayed(index.pixel_size)
    rotation = decoded.orientation.rotation
    row = replace(row, rotation=rotation, width=width, height=height, frames=decoded.leading, listed=listed)
    row = replace(row, status="ok", decoder="pyav")
    if decoded.leading < listed:
        row = replace(row, reason=shortened(decoded.leading, listed, decoded.problem), status="partial")
        if decoded.leading < USABLE_SHARE * listed:
            return replace(row, status="unusable", decoder="")
        clips = [[number for number in clip if number < decoded.leading] for clip in clips]
    clips = [clip for clip in clips if clip]
    if decoded.lying_keys:
        notes.append(f"{decoded.lying_keys} key frames wrongly marked: read by counting from the start")
    wrong = _first_difference(path, "auto", clips, decoded, alive)
    if wrong is not None:
        notes.append(f"frame {wrong} is wrong after a seek: read by counting from the start")
        if (again := _first_difference(path, "sequential", clips, decoded, alive)) is not None:
            raise UnreadableVideo(path, f"frame {again} differs from one decoding to the next (damaged)")
    row = replace(row, reason="; ".join(filter(None, [row.reason, *notes])))
    if (decoded.lying_keys or wrong is not None) and row.status == "ok":
        return replace(row, status="sequential", decoder="sequential")
    if decord_problem():
        return replace(row, decord="absent")
    if not by_decord:
        return row
    alive(max(_DECORD_SECONDS, 5 * decoded.seconds))
    verdict, reason = _check_decord(path, clips, decoded)
    return replace(row, decord="same") if verdict == "same" else not_by_decord(row, verdict, reason)


def _notes(container: Any, stream: Any, index: PacketIndex) -> list[str]:
    """Say what is odd about a file that is whole."""
    notes, claimed = [], claimed_frames(container, stream, index)
    if claimed > index.num_frames:
        notes.append(f"the header claims {claimed} frames, {index.num_frames} are there")
    kind = {16: "PQ", 18: "HLG"}.get(int(stream.codec_context.color_trc))
    if kind:
        notes.append(f"HDR ({kind}), read without tone mapping")
    return notes


def _describe(row: VideoRow, index: PacketIndex, stream: Any) -> VideoRow:
    count = index.num_frames
    places = np.unique(np.searchsorted(index.pts, index.key_pts).clip(0, count - 1))
    gaps = np.diff([*places.tolist(), count])
    seconds = count / index.fps
    if index.timed and count > 1 and stream.time_base:
        shown = float((index.pts[-1] - index.pts[0]) * stream.time_base)
        seconds = shown * count / (count - 1)  # the last frame stays as long as the others do on average
    return replace(
        row,
        fps=index.fps,
        duration=seconds,
        width=index.pixel_size[0],
        height=index.pixel_size[1],
        codec=index.codec,
        container=index.container,
        keyframes=len(index.key_pts),
        key_gap_median=int(np.median(gaps)),
        key_gap_max=int(gaps.max()),
    )


def sampled_clips(index: PacketIndex) -> list[list[int]]:
    """Choose frames to compare, read together as the loader reads a clip: strided, spread, and around key frames.

    The first and the last frame are among them.
    """
    count = index.num_frames
    spread = np.linspace(0, count - 1, _CLIP_FRAMES).astype(int).tolist()
    stride = max(1, min(_CLIP_STRIDE, count // _CLIP_FRAMES))
    start = (count - 1 - stride * (_CLIP_FRAMES - 1)) // 3
    strided = [start + stride * number for number in range(_CLIP_FRAMES)]
    keys = np.searchsorted(index.pts, index.key_pts)
    keys = keys[(keys > 0) & (keys < count)]
    if len(keys) > _KEY_FRAMES:
        keys = keys[np.linspace(0, len(keys) - 1, _KEY_FRAMES).astype(int)]
    around = [key + offset for key in keys.tolist() for offset in (-2, -1, 0, 1)]
    return [sorted({n for n in clip if 0 <= n < count}) for clip in (spread, strided, around)]


def _decode_all(path: Path, index: PacketIndex, wanted: set[int], alive: Alive) -> _Decoded:
    whole = np.zeros(index.num_frames, dtype=bool)
    pixels: dict[int, np.ndarray] = {}
    display = Display(index.pixel_size)
    keys = set(np.flatnonzero(np.isin(index.pts, index.key_pts)).tolist()) if index.timed else set()
    lying = 0
    orientation, problem, started = None, None, time.monotonic()
    try:
        for number, frame in frames_in_order(path, index, alive):
            orientation = orientation or display.orientation(frame)
            if not 0 <= number < len(whole) or frame.is_corrupt:
                continue
            whole[number] = True
            lying += number in keys and not is_intra(frame)
            if number in wanted:
                pixels[number] = _thinned(display.rgb(frame))
    except UnreadableVideo as error:
        problem = error.reason
    leading = len(whole) if whole.all() else int(np.argmin(whole))
    return _Decoded(leading, orientation or Orientation(False, 0), pixels, problem, time.monotonic() - started, lying)


def _first_difference(path: Path, decoder: str, clips: list[list[int]], decoded: _Decoded, alive: Alive) -> int | None:
    """Find the first frame of which reading by ``decoder`` gives other pixels than decoding in order."""
    for clip in clips:
        alive()
        with Video(path, decoder, _NO_LIMIT) as video:
            frames = video.read(clip).numpy()
        for number, frame in zip(clip, frames, strict=True):
            if not np.array_equal(_thinned(frame), decoded.pixels[number]):
                return number
    return None


def _check_decord(path: Path, clips: list[list[int]], decoded: _Decoded) -> tuple[str, str]:
    """Compare decord's random access with decoding in order. Returns (verdict, reason).

    A fresh reader for every clip, as the loader has. decord converts colours with another version of FFmpeg, so frames
    need not be equal to the bit; the first frame, on which it cannot err, tells how close equal frames are.
    """
    if decoded.orientation.mirrored:
        return "different", "decord does not mirror its frames"
    closeness: float | None = None
    wrong: set[int] = set()
    for clip in clips:
        try:
            with Video(path, "decord", _NO_LIMIT) as video:
                frames = [_thinned(frame) for frame in video.read(clip).numpy()]
        except UnreadableVideo as error:
            if "would hang" in error.reason:
                return "hangs", "decord would hang on it (its time stamps start below 0)"
            return "fails", _plain(error.reason)
        except IndexError:
            return "fails", "decord counts other frames"
        if closeness is None:
            closeness = _distance(frames[0], decoded.pixels[clip[0]])
        for number, frame in zip(clip, frames, strict=True):
            own = _distance(frame, decoded.pixels[number])
            others = (_distance(frame, decoded.pixels[other]) for other in clip if other != number) if own else ()
            if own > 0.02 + 2 * closeness or own > 20 or any(other < 0.8 * own for other in others):
                wrong.add(number)
    if wrong:
        total = len({number for clip in clips for number in clip})
        return "different", f"decord returned {len(wrong)} of {total} frames wrong (the first: frame {min(wrong)})"
    return "same", ""


def _plain(reason: str) -> str:
    """decord's words without the place in its source."""
    words = re.sub(r"\[[\d:]+\] \S+:\d+: (Check failed: .*ERROR )?", "", reason.split(": set data.")[0])
    return words if words.startswith("decord") else f"decord: {words}"


def _thinned(frame: np.ndarray) -> np.ndarray:
    """Sample pixels on a coarse grid."""
    step = max(1, round((frame.shape[0] * frame.shape[1] / _COMPARED_PIXELS) ** 0.5))
    return np.ascontiguousarray(frame[::step, ::step])


def _distance(first: np.ndarray, second: np.ndarray) -> float:
    """Mean absolute difference of the pixels, 0 to 255; infinite between pictures of different sizes."""
    if first.shape != second.shape:
        return float("inf")
    return float(np.abs(first.astype(np.int16) - second).mean())
