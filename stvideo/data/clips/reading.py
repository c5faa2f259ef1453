"""From an opened video to the frames of a clip: which ones, in what size and colour order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from stvideo.core.errors import StvideoError, nearest
from stvideo.data.clips.preprocessing import Preprocessing
from stvideo.data.clips.sampling import trimmed_range
from stvideo.data.video.decode import DECODERS, Readable, UnreadableVideo
from stvideo.data.video.images import StillImage
from stvideo.settings.config import DataConfig

_SCALE_AT_DECODE = 1.5  # frames that many times larger than needed are scaled while decoding


@dataclass(frozen=True)
class ClipReading:
    """Read clips of opened videos.

    Attributes:
        preprocessing: which frames, and in what size and colour order.
        decoder: ``auto`` or one of `stvideo.data.video.decode.DECODERS`.
        timeout: seconds that one video may take.
    """

    preprocessing: Preprocessing
    decoder: str = "auto"
    timeout: float = 60.0

    @classmethod
    def from_config(cls, config: DataConfig) -> ClipReading:
        """The settings of ``config``, checked; raises `StvideoError` naming the key."""
        preprocessing = Preprocessing.from_config(config)
        if not 0 < config.timeout < float("inf"):
            raise StvideoError(f"data.timeout={config.timeout}: expected a number above 0")
        if config.decoder not in DECODERS:
            hint = nearest(str(config.decoder), DECODERS)
            raise StvideoError(f"data.decoder={config.decoder}: choose {', '.join(DECODERS)}{hint}")
        return cls(preprocessing, config.decoder, config.timeout)

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
        return first + self.preprocessing.indices(count, video.fps, clip, num_clips, generator)

    def frames(self, video: Readable, indices: np.ndarray, short_side: float) -> torch.Tensor:
        """uint8 (T, H, W, 3) in the wanted colour order; large frames come scaled to ``short_side``."""
        size = round(short_side) if video.short_side > _SCALE_AT_DECODE * short_side else None
        return self._ordered(video.read(indices.tolist(), size))

    def test_frames(self, video: Readable, indices: np.ndarray) -> torch.Tensor:
        """Frames for test crops. Images are scaled at once and exactly, as the papers' image preprocessing does."""
        if isinstance(video, StillImage):
            return self._ordered(video.read(indices.tolist(), self.preprocessing.test_size))
        return self.frames(video, indices, self.preprocessing.test_size)

    def _ordered(self, frames: torch.Tensor) -> torch.Tensor:
        return frames.flip(-1) if self.preprocessing.color_order == "bgr" else frames
