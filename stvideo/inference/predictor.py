"""A checkpoint made ready for single videos: what `predict` and `visualize` share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stvideo.core.errors import StvideoError
from stvideo.core.messages import logger
from stvideo.core.tokens import TokenTrace
from stvideo.data.clips.preprocessing import Preprocessing
from stvideo.data.clips.reading import ClipReading
from stvideo.data.clips.sampling import parse_views, segment_indices, stride_indices
from stvideo.data.clips.transforms import TestTransform, normalize, view_crop
from stvideo.data.video.decode import Readable, VideoInfo
from stvideo.drawing.geometry import Crop
from stvideo.models.base import Backbone
from stvideo.settings.config import Config, DataConfig
from stvideo.training.checks import check_config
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
        """Position in the clip of the sampled frame that is nearest to ``frame`` of the video."""
        return int(np.abs(self.indices - frame).argmin())


@dataclass
class Predictor:
    """A model with its classes and its preprocessing.

    Attributes:
        model: in evaluation mode, on ``device``.
        name: of the model, for people.
        classes: names in the order of the outputs.
        data: how a clip is read.
        config: every setting, the command line's over the checkpoint's.
    """

    model: Backbone
    name: str
    classes: list[str]
    data: DataConfig
    config: Config
    device: torch.device

    def __post_init__(self) -> None:
        self.reading = ClipReading.from_config(self.data)

    def indices(self, info: VideoInfo) -> NDArray[np.int64]:
        """Frames of the one clip that stands for the whole video, (T,), as in a one-clip evaluation."""
        return self.reading.preprocessing.indices(info.num_frames, info.fps)

    def repeats(self, info: VideoInfo) -> bool:
        """Whether the video is too short for a clip, so that its last frame is repeated."""
        needed = self.data.num_frames if self.data.sampling == "segment" else int(self.span(info))
        return info.num_frames < needed

    def span(self, info: VideoInfo) -> float:
        """How many frames of the video one clip reaches over."""
        if self.data.sampling == "segment":
            return float(info.num_frames)
        return self.data.stride * self.data.num_frames * info.fps / self.data.target_fps

    def windows(self, info: VideoInfo, hop: float | None = None, length: float | None = None) -> list[Window]:
        """Clips that follow each other and cover the whole video; the last one ends with the video.

        Args:
            hop: frames from one window's start to the next; None: the length. With a shorter hop a frame belongs to
                the latest window that has begun.
            length: frames in a window; None: the span of a clip, which the model was trained on (for segment
                sampling the whole video, hence one window).
        """
        data, total = self.data, info.num_frames
        span = min(max(length or self.span(info), 1.0), max(total, self.span(info)))
        last_start = max(total - span, 0.0)
        hop = max(hop or span, 1.0)
        count = 1 + int(np.ceil(round(last_start / hop, 6)))
        starts = [min(i * hop, last_start) for i in range(count)]
        # A window shifted back to end with the video takes over where the one before it ends.
        borders = [0, *(round(min(i * hop, total)) for i in range(1, count)), total]
        windows = []
        for start, first, stop in zip(starts, borders[:-1], borders[1:], strict=True):
            if data.sampling == "segment":
                begin = min(int(start), total - 1)
                taken = begin + segment_indices(max(1, min(round(span), total - begin)), data.num_frames)
            else:
                position = start / last_start if last_start else 0.0
                stride = span / data.num_frames * data.target_fps / info.fps
                taken = stride_indices(total, info.fps, data.num_frames, stride, data.target_fps, position)
            if stop > first:
                windows.append(Window(first, stop, taken, start, start + span))
        return windows

    def read_clip(self, video: Readable, indices: NDArray[np.int64]) -> Tensor:
        """Frames of an opened video as the model takes them: (1, 3, T, S, S), normalised, the centre crop."""
        return self.prepare(self.reading.test_frames(video, indices))

    def prepare(self, frames: Tensor, crop: int = 0, num_crops: int = 1) -> Tensor:
        """Frames (T, H, W, 3) uint8 of any size, in the model's colour order, as the model takes them."""
        share = self.reading.preprocessing.test_share
        clip = TestTransform(self.data.img_size, num_crops, share)(frames, crop)[None].to(self.device)
        return normalize(clip, self.data.mean, self.data.std)

    def score(self, video: Readable, views: str) -> NDArray[np.float32]:
        """Class probabilities (K,) of a video, averaged over ``views`` (clips x crops) as an evaluation does."""
        num_clips, num_crops = parse_views(views)
        total = np.zeros(len(self.classes), np.float64)
        for clip in range(num_clips):
            indices = self.reading.indices(video, (None, None), clip, num_clips)
            frames = self.reading.test_frames(video, indices)
            for crop in range(num_crops):
                total += self.run(self.prepare(frames, crop, num_crops))[0]
        return (total / (num_clips * num_crops)).astype(np.float32)

    @torch.inference_mode()
    def run(self, clip: Tensor) -> tuple[NDArray[np.float32], TokenTrace]:
        """Class probabilities (K,) of one clip, and where its patches went."""
        logits, trace = self.model(clip, return_trace=True)
        if not logits.isfinite().all():
            raise StvideoError("the model's scores are not finite; its weights have diverged")
        return logits[0].float().softmax(-1).cpu().numpy(), trace

    def top(self, probabilities: NDArray[np.float32], count: int) -> list[tuple[str, float]]:
        """The ``count`` most probable classes with their probabilities, best first."""
        best = np.argsort(-probabilities, kind="stable")[: max(count, 0)]
        return [(self.classes[i], float(probabilities[i])) for i in best]

    def crop(self, width: int, height: int) -> Crop:
        """Where the patch grid lies on a frame of the video, in pixels."""
        box = view_crop(height, width, 0, 1, self.reading.preprocessing.test_share)
        return Crop(box.left, box.top, box.width, box.height, width, height)


def load_predictor(overrides: list[str]) -> Predictor:
    """The model of ``checkpoint=`` with its own preprocessing, changed by the command line (which warns).

    Raises:
        StvideoError: no checkpoint, a damaged one, or a setting that only training has.
    """
    for text in overrides:
        key = text.split("=", 1)[0]
        if key.startswith("data.") and key.removeprefix("data.").split(".")[0] not in CHANGEABLE_DATA:
            raise StvideoError(f"{key}: has no effect here; of data, only {', '.join(CHANGEABLE_DATA)} can be changed")
    restored = restore(None, overrides, needs_data=False)
    check_config(restored.config)
    if restored.config.top_k < 1:
        raise StvideoError(f"top_k={restored.config.top_k}: must be at least 1")
    model, config, metadata = restored.model, restored.config, restored.metadata
    if "preprocess" not in metadata:
        config.data.num_frames, config.data.img_size = model.num_frames, model.img_size[0]
        logger.warning(
            f"{restored.path}: the file does not say how its input was prepared; using mean {config.data.mean}, "
            f"std {config.data.std}, sampling {config.data.sampling}, stride {config.data.stride}"
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.eval().to(device)
    classes = [str(name) for name in metadata.get("classes") or []]
    outputs = getattr(getattr(model, "head", None), "out_features", len(classes))
    if not classes:
        classes = [f"class {i}" for i in range(outputs)]
    if len(classes) != outputs:
        raise StvideoError(f"{restored.path}: it names {len(classes)} classes, but its head has {outputs}")
    name = str(metadata.get("model", {}).get("name", type(model).__name__))
    return Predictor(model, name, classes, config.data, config, device)
