"""Which frames of a video make a clip: pure functions from lengths to frame indices.

Two ways of reading (the published settings of TimeSformer for each data set):

- ``stride`` (Kinetics): T frames at a fixed stride counted at ``target_fps``, from a random place in training;
- ``segment`` (Something-Something): one frame from each of T equal segments of the whole video.
"""

from __future__ import annotations

import numpy as np

from stvideo.core.errors import StvideoError, nearest
from stvideo.data.clips.published import Rule

SAMPLINGS = ("stride", "segment")
ROUNDING = 1e-6  # seconds: a frame at 0.1 s belongs to what starts at 0.1 s, however the two were computed


def stride_indices(
    video_frames: int,
    fps: float,
    num_frames: int,
    stride: float,
    target_fps: float = 30.0,
    position: float = 0.5,
) -> np.ndarray:
    """Spread ``num_frames`` indices over ``stride * num_frames * fps / target_fps`` source frames, int64 (T,).

    The span covers both its ends. ``position`` says where it lies: 0 at the start of the video, 1 at its end. A video
    shorter than the span is read from its start, its last frame repeated.
    """
    span = max(stride * num_frames * fps / target_fps, 1.0)  # one frame at least, however slow the video
    start = max(video_frames - span, 0.0) * position
    indices = np.linspace(start, start + span - 1, num_frames)
    return np.clip(indices.astype(np.int64), 0, video_frames - 1)


def segment_indices(
    video_frames: int,
    num_frames: int,
    position: float = 0.5,
    generator: np.random.Generator | None = None,
) -> np.ndarray:
    """Take one index from each of ``num_frames`` equal segments, int64 (T,).

    With a ``generator`` the frame is drawn at random from its segment (training), else it lies at ``position`` in it:
    0 the segment's first frame, 0.5 its middle, 1 its last.
    """
    length = (video_frames - 1) / num_frames
    bounds = np.array([round(length * i) for i in range(num_frames + 1)], dtype=np.int64)
    first, last = bounds[:-1], bounds[1:]
    if generator is not None:
        return generator.integers(first, last, endpoint=True)
    if position == 0.5:
        return (first + last) // 2
    return first + np.floor((last - first) * position + 0.5).astype(np.int64)


def clip_position(clip: int, num_clips: int, sampling: str) -> float:
    """Place test clip ``clip`` of ``num_clips``, for `stride_indices` or `segment_indices`.

    Strided: the middle for one clip, else evenly from the first to the last start. Segments: the middle of each for one
    clip, middle and first frame for two, for more evenly from first to last frame.
    """
    if num_clips == 1:
        return 0.5
    if sampling == "segment" and num_clips == 2:
        return (0.5, 0.0)[clip]
    return clip / (num_clips - 1)


def frame_indices(
    video_frames: int,
    fps: float,
    *,
    sampling: str,
    num_frames: int,
    stride: float = 32,
    target_fps: float = 30.0,
    clip: int = 0,
    num_clips: int = 1,
    generator: np.random.Generator | None = None,
    times: np.ndarray | None = None,
    rule: Rule | None = None,
) -> np.ndarray:
    """Choose the frames of one clip, int64 (T,), rising (repeats where the video is short).

    With ``generator`` a random training clip, else test clip ``clip`` of ``num_clips``.

    Args:
        times: seconds at which each frame is shown, (video_frames,), where that is to count and not the frames: a
            strided clip takes what is shown at its moments, as if the video came at ``target_fps``.
        rule: of a published protocol, which places test clips in its own way; it may start short videos again.
    """
    check_sampling(sampling)
    if video_frames < 1 or num_frames < 1 or fps <= 0:
        raise ValueError(f"cannot sample {num_frames} frames of {video_frames} at {fps} fps")
    if rule is not None:
        return rule(video_frames, fps, num_frames, stride, target_fps, clip, num_clips)
    position = clip_position(clip, num_clips, sampling)
    if sampling == "segment":
        return segment_indices(video_frames, num_frames, position, generator)
    if generator is not None:
        position = float(generator.random())
    if times is not None:
        ticks = max(round((times[-1] - times[0] + 1 / fps) * target_fps), 1)
        taken = stride_indices(ticks, target_fps, num_frames, stride, target_fps, position)
        return np.searchsorted(times, times[0] + taken / target_fps + ROUNDING, side="right") - 1
    return stride_indices(video_frames, fps, num_frames, stride, target_fps, position)


def are_even(times: np.ndarray) -> bool:
    """Tell whether the frames of a video follow each other at one rate: none is off by more than half a frame."""
    if len(times) < 3:
        return True
    off = np.abs(times - np.linspace(times[0], times[-1], len(times)))
    return bool(off.max() <= 0.5 * (times[-1] - times[0]) / (len(times) - 1) + ROUNDING)


def trimmed_range(times: np.ndarray, start: float | None, end: float | None) -> tuple[int, int]:
    """First frame and number of frames of the part [start, end) of a video, in seconds.

    ``times`` (video_frames,) says when each frame is shown, so that a varying frame rate is followed too. A part
    between two frames is the one frame seen then.
    """
    first = 0 if start is None else int(np.searchsorted(times, start - ROUNDING))
    stop = len(times) if end is None else int(np.searchsorted(times, end - ROUNDING))
    return (first, stop - first) if stop > first else (max(min(first, len(times)) - 1, 0), 1)


def check_sampling(sampling: str) -> None:
    """Check that ``sampling`` is one of `SAMPLINGS`; raises `StvideoError`."""
    if sampling not in SAMPLINGS:
        hint = nearest(str(sampling), SAMPLINGS)
        raise StvideoError(
            f"data.sampling: unknown way of sampling {sampling!r}{hint}: choose {' or '.join(SAMPLINGS)}"
        )
