"""Run a checkpoint on single videos, for `predict` and `visualize`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from stvideo.core.errors import StvideoError
from stvideo.core.trace import TokenTrace
from stvideo.data.clips.preprocessing import Preprocessing
from stvideo.data.clips.protocols import find_protocol
from stvideo.data.clips.reading import ClipReading
from stvideo.data.clips.sampling import are_even, segment_indices, stride_indices
from stvideo.data.clips.transforms import TestTransform, normalize, view_crop
from stvideo.data.video.decode import Readable, VideoInfo, open_video
from stvideo.drawing.geometry import PatchArea
from stvideo.models.base import Backbone
from stvideo.settings.checks import check_config
from stvideo.settings.config import Config
from stvideo.weights.restore import restore

# What these commands let the command line change; everything else is the checkpoint's.
CHANGEABLE_DATA = (*Preprocessing.names(), "decoder", "timeout")


@dataclass(frozen=True)
class Window:
    """A part of a video that one clip stands for.

    Attributes:
        start, stop: frames of the video that belong to it, ``stop`` excluded; windows do not share any.
        indices: (T,) the frames that the model sees, rising; they may repeat.
        begin, end: what the clip reaches over, in frames; it may overlap with other windows' and, in a short video,
            go beyond the end.
    """

    start: int
    stop: int
    indices: NDArray[np.int64]
    begin: float
    end: float

    def nearest(self, frame: int) -> int:
        """Find the position in the clip of the sampled frame that is nearest to ``frame`` of the video."""
        return int(np.abs(self.indices - frame).argmin())


@dataclass
class Predictor:
    """Run a model on single videos.

    Attributes:
        model: in evaluation mode, with its class names.
        config: every setting, the command line's over the checkpoint's.
        reading, preprocessing: how a clip is read, from ``config.data``.
    """

    model: Backbone
    config: Config

    def __post_init__(self) -> None:
        self.reading = ClipReading.from_config(self.config.data)
        self.preprocessing = self.reading.preprocessing

    def open(self, path: Path) -> Readable:
        """Open a video with the decoder of the settings, as a context manager; raises `StvideoError`."""
        return open_video(path, self.reading.decoder, self.reading.timeout)

    def indices(self, info: VideoInfo, times: NDArray[np.float64] | None = None) -> NDArray[np.int64]:
        """Choose the frames of the one clip that stands for the whole video, (T,), as a one-clip evaluation does.

        ``times`` (num_frames,) says when each frame is shown; None: at one rate.
        """
        moments = None if times is None or are_even(times) else times
        return self.preprocessing.indices(info.num_frames, info.fps, times=moments)

    def repeats(self, info: VideoInfo) -> bool:
        """Tell whether the video is too short for a clip, so that its last frame is repeated."""
        by_segments = self.preprocessing.sampling == "segment"
        return info.num_frames < (self.preprocessing.num_frames if by_segments else int(self.span(info)))

    def span(self, info: VideoInfo) -> float:
        """Count the frames of the video that one clip reaches over."""
        how = self.preprocessing
        if how.sampling == "segment":
            return float(info.num_frames)
        return how.stride * how.num_frames * info.fps / how.target_fps

    def windows(self, info: VideoInfo, hop: float | None = None, length: float | None = None) -> list[Window]:
        """Divide a video into clips that follow each other and cover all of it; the last one ends with the video.

        Args:
            hop: frames from one window's start to the next; None: the length. With a shorter hop a frame belongs to
                the latest window that has begun.
            length: frames in a window; None: the span of a clip, which the model was trained on (for segment
                sampling the whole video, hence one window).
        """
        how, total = self.preprocessing, info.num_frames
        span = min(max(length or self.span(info), 1.0), max(total, self.span(info)))
        last_start = max(total - span, 0.0)
        hop = max(hop or span, 1.0)
        count = 1 + int(np.ceil(round(last_start / hop, 6)))
        starts = [min(i * hop, last_start) for i in range(count)]
        # A window shifted back to end with the video takes over where the one before it ends.
        borders = [0, *(round(min(i * hop, total)) for i in range(1, count)), total]
        windows = []
        for start, first, stop in zip(starts, borders[:-1], borders[1:], strict=True):
            if how.sampling == "segment":
                begin = min(int(start), total - 1)
                taken = begin + segment_indices(max(1, min(round(span), total - begin)), how.num_frames)
            else:
                position = start / last_start if last_start else 0.0
                stride = span / how.num_frames * how.target_fps / info.fps
                taken = stride_indices(total, info.fps, how.num_frames, stride, how.target_fps, position)
            if stop > first:
                windows.append(Window(first, stop, taken, start, start + span))
        return windows

    def read_clip(self, video: Readable, indices: NDArray[np.int64]) -> Tensor:
        """Read frames of an opened video as the model takes them: (1, 3, T, S, S), normalised, the centre crop."""
        return self.prepare(self.reading.test_frames(video, indices))

    def read_windows(self, video: Readable, windows: Sequence[Window]) -> Iterator[Tensor]:
        """Read the clip of each window in turn, with a progress bar."""
        for window in tqdm(windows, unit="window", desc=video.path.name, leave=False, disable=None):
            yield self.read_clip(video, window.indices)

    def prepare(self, frames: Tensor, crop: int = 0, num_crops: int = 1) -> Tensor:
        """Crop, scale and normalise frames (T, H, W, 3) uint8 of any size, in the model's colour order."""
        how = self.preprocessing
        clip = TestTransform(how.square_size, num_crops, how.test_share)(frames, crop)[None]
        return normalize(clip.to(next(self.model.parameters()).device), how.mean, how.std)

    def score(self, video: Readable, views: str) -> NDArray[np.float32]:
        """Average class probabilities (K,) over the ``views`` (clips x crops) of a video, as an evaluation does."""
        protocol = find_protocol(views)
        total = np.zeros(len(self.model.classes), np.float64)
        for clip in range(protocol.clips):
            indices = self.reading.indices(video, (None, None), clip, protocol)
            frames = self.reading.test_frames(video, indices)
            for crop in range(protocol.crops):
                total += self.run(self.prepare(frames, crop, protocol.crops))[0]
        return (total / (protocol.clips * protocol.crops)).astype(np.float32)

    @torch.inference_mode()
    def run(self, clip: Tensor) -> tuple[NDArray[np.float32], TokenTrace]:
        """Compute the class probabilities (K,) of one clip, and record where its patches went."""
        logits, trace = self.model(clip, return_trace=True)
        if not logits.isfinite().all():
            raise StvideoError("the model's scores are not finite; its weights have diverged")
        return logits[0].float().softmax(-1).cpu().numpy(), trace

    def top(self, probabilities: NDArray[np.float32], count: int) -> list[tuple[str, float]]:
        """Rank the ``count`` most probable classes with their probabilities, best first."""
        best = np.argsort(-probabilities, kind="stable")[: max(count, 0)]
        return [(self.model.classes[i], float(probabilities[i])) for i in best]

    def area(self, info: VideoInfo) -> PatchArea:
        """Find where the patch grid lies on a frame of the video, in pixels."""
        box = view_crop(info.height, info.width, 0, 1, self.preprocessing.test_share)
        return PatchArea(box.left, box.top, box.width, box.height, info.width, info.height)


def as_dicts(predictions: Sequence[tuple[str, float]]) -> list[dict[str, Any]]:
    """Turn class names and probabilities into what JSON files hold of them."""
    return [{"class": name, "probability": round(probability, 6)} for name, probability in predictions]


def load_predictor(overrides: list[str]) -> Predictor:
    """Load the model of ``checkpoint=`` with its own preprocessing, changed by the command line (which warns).

    Raises:
        StvideoError: no checkpoint, a damaged one, or a setting that only training has.
    """
    for text in overrides:
        key = text.split("=", 1)[0]
        if key.startswith("data.") and key.removeprefix("data.").split(".")[0] not in CHANGEABLE_DATA:
            raise StvideoError(f"{key}: has no effect here; of data, only {', '.join(CHANGEABLE_DATA)} can be changed")
    restored = restore(None, overrides, needs_data=False)
    check_config(restored.config)
    model = restored.model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    return Predictor(model, restored.config)
