"""Which frames the test programs of published work read, frame for frame.

Every rule counts frames, whatever the times at which they are shown, and takes the same arguments:

- ``video_frames``, ``fps``: of the video;
- ``num_frames``, ``stride``, ``target_fps``: of the clips, see `stvideo.data.clips.preprocessing.Preprocessing`;
- ``clip``, ``num_clips``: which clip of how many.

It returns indices, int64 (num_frames,).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

Rule = Callable[[int, float, int, float, float, int, int], np.ndarray]


def timesformer_kinetics(
    video_frames: int, fps: float, num_frames: int, stride: float, target_fps: float, clip: int, num_clips: int
) -> np.ndarray:
    """Start clip i of n at the i-th nth of the room for starts, the only clip at frame 0; strides at ``target_fps``."""
    span = stride * num_frames / target_fps * fps
    start = math.ceil(max(video_frames - span, 0) * clip / num_clips)
    steps = torch.linspace(0, span - 1, num_frames).long().numpy()  # in single precision, as published
    return np.clip(start + steps, 0, video_frames - 1)


def videomae_kinetics(
    video_frames: int, fps: float, num_frames: int, stride: float, target_fps: float, clip: int, num_clips: int
) -> np.ndarray:
    """Take every ``stride``-th frame at the video's own rate, and of these clips evenly from first to last start.

    Where they are too few the last of them is repeated.
    """
    taken = np.arange(0, video_frames, stride).astype(np.int64)
    step = max((len(taken) - num_frames) / max(num_clips - 1, 1), 0)
    return taken[np.minimum(int(clip * step) + np.arange(num_frames), len(taken) - 1)]


def video_swin_kinetics(
    video_frames: int, fps: float, num_frames: int, stride: float, target_fps: float, clip: int, num_clips: int
) -> np.ndarray:
    """Start each clip in the middle of its share of the starts, at the video's own rate; short videos begin again."""
    room = (video_frames - num_frames * stride + 1) / num_clips
    start = int(clip * room + room / 2) if video_frames >= num_frames * stride else 0
    return _from_start(start, video_frames, num_frames, stride)


def mmaction2_kinetics(
    video_frames: int, fps: float, num_frames: int, stride: float, target_fps: float, clip: int, num_clips: int
) -> np.ndarray:
    """Start clips evenly from first to last start, at the video's own rate; short videos begin again (release 1.x)."""
    room = max(video_frames - (num_frames - 1) * stride - 1, 0)
    start = round(clip * (room / (num_clips - 1))) if num_clips > 1 else int(room // 2)
    return _from_start(start, video_frames, num_frames, stride)


def videomae_something(
    video_frames: int, fps: float, num_frames: int, stride: float, target_fps: float, clip: int, num_clips: int
) -> np.ndarray:
    """Take of each of ``num_frames`` equal segments its first frame, in the second of two clips its middle one."""
    length = video_frames / num_frames
    return (length * clip / num_clips + length * np.arange(num_frames)).astype(np.int64)


def _from_start(start: int, video_frames: int, num_frames: int, stride: float) -> np.ndarray:
    return (start + np.arange(num_frames) * stride).astype(np.int64) % video_frames
