"""From an opened video to the frames of a clip: which ones, in what size and colour order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from stvideo.core.errors import StvideoError, nearest
from stvideo.data.clips.sampling import check_sampling, frame_indices, trimmed_range
from stvideo.data.clips.transforms import COLOR_ORDERS
from stvideo.data.video.decode import DECODERS, Readable, UnreadableVideo
from stvideo.data.video.images import StillImage
from stvideo.settings.config import DataConfig

_SCALE_AT_DECODE = 1.5  # frames that many times larger than needed are scaled while decoding


@dataclass(frozen=True)
class ClipReading:
    """How a clip is read from a video; everything that has to agree between training and use."""

    sampling: str
    num_frames: int
    stride: float
    target_fps: float
    img_size: int
    test_short_side: int | None = None
    color_order: str = "rgb"
    decoder: str = "auto"
    timeout: float = 60.0

    @classmethod
    def from_config(cls, config: DataConfig) -> ClipReading:
        """The settings of ``config``, checked; raises `StvideoError` naming the key."""
        check_sampling(config.sampling)
        for key in ("num_frames", "stride", "target_fps", "img_size", "timeout"):
            if not 0 < getattr(config, key) < float("inf"):
                raise StvideoError(f"data.{key}={getattr(config, key)}: expected a number above 0")
        if config.test_short_side is not None and config.test_short_side < config.img_size:
            raise StvideoError(
                f"data.test_short_side={config.test_short_side}: must not be below data.img_size={config.img_size}"
            )
        for key, choices in (("color_order", COLOR_ORDERS), ("decoder", DECODERS)):
            value = getattr(config, key)
            if value not in choices:
                raise StvideoError(f"data.{key}={value}: choose {', '.join(choices)}{nearest(str(value), choices)}")
        return cls(**{name: getattr(config, name) for name in cls.__dataclass_fields__})

    def indices(
        self,
        video: Readable,
        span: tuple[float | None, float | None],
        clip: int,
        num_clips: int,
        generator: Any = None,
    ) -> np.ndarray:
        """Frames of one clip; ``span`` limits it to a part of the video (seconds).

        Raises:
            UnreadableVideo: the video ends before that part begins.
        """
        first, count = 0, video.num_frames
        if span != (None, None):
            times, (start, end) = video.times, span
            duration = float(times[-1]) + 1 / video.fps
            if start is not None and start >= duration:
                raise UnreadableVideo(video.path, f"it ends at {duration:.2f} s, the list takes it from {start:g} s on")
            first, count = trimmed_range(times, start, end)
        return first + frame_indices(
            count,
            video.fps,
            sampling=self.sampling,
            num_frames=self.num_frames,
            stride=self.stride,
            target_fps=self.target_fps,
            clip=clip,
            num_clips=num_clips,
            generator=generator,
        )

    @property
    def test_size(self) -> int:
        """Pixels of the shorter side from which the test crops of ``img_size`` are cut."""
        return self.test_short_side or self.img_size

    @property
    def test_share(self) -> float:
        """Share of the shorter side that a test crop covers."""
        return self.img_size / self.test_size

    def frames(self, video: Readable, indices: np.ndarray, short_side: float) -> torch.Tensor:
        """uint8 (T, H, W, 3) in the wanted colour order; large frames come scaled to ``short_side``."""
        size = round(short_side) if video.short_side > _SCALE_AT_DECODE * short_side else None
        return self._ordered(video.read(indices.tolist(), size))

    def test_frames(self, video: Readable, indices: np.ndarray) -> torch.Tensor:
        """Frames for test crops. Images are scaled at once and exactly, as the papers' image preprocessing does."""
        if isinstance(video, StillImage):
            return self._ordered(video.read(indices.tolist(), self.test_size))
        return self.frames(video, indices, self.test_size)

    def _ordered(self, frames: torch.Tensor) -> torch.Tensor:
        return frames.flip(-1) if self.color_order == "bgr" else frames
