"""From an opened video to the frames of a clip: which ones, in what size and colour order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from stvideo.core.errors import StvideoError, nearest
from stvideo.data.clips.preprocessing import Preprocessing
from stvideo.data.clips.protocols import Protocol, find_protocol
from stvideo.data.clips.sampling import are_even, trimmed_range
from stvideo.data.video.decode import DECODERS, Readable, UnreadableVideo
from stvideo.data.video.images import StillImage
from stvideo.settings.schema import DataConfig

ONE_CLIP = find_protocol("1x1")
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
        """Take and check the settings of ``config``; raises `StvideoError` naming the key."""
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
        clip: int = 0,
        protocol: Protocol = ONE_CLIP,
        generator: np.random.Generator | None = None,
    ) -> np.ndarray:
        """Frames of one clip of a protocol, or with ``generator`` of a random one.

        ``span`` limits it to a part of the video, in seconds of the container's clock.

        Raises:
            UnreadableVideo: that part begins after the video's end, or ends before its first frame.
        """
        times, (start, end) = video.times, span
        finish = float(times[-1]) + 1 / video.fps
        if start is not None and start >= finish:
            raise UnreadableVideo(video.path, f"it ends at {finish:.2f} s, the list takes it from {start:g} s on")
        if end is not None and end <= times[0]:
            raise UnreadableVideo(video.path, f"it begins at {times[0]:.2f} s, the list takes it up to {end:g} s")
        first, count = trimmed_range(times, start, end)
        # A video of one rate is read by counting, as published, without the rounding of its clock.
        moments = None if are_even(times) else times[first : first + count]
        return first + self.preprocessing.indices(
            count,
            video.fps,
            clip=clip,
            num_clips=protocol.clips,
            generator=generator,
            times=moments,
            rule=protocol.rule,
        )

    def frames(self, video: Readable, indices: np.ndarray, short_side: float) -> torch.Tensor:
        """uint8 (T, H, W, 3) in the wanted colour order; large frames come scaled to ``short_side``."""
        size = round(short_side) if video.short_side > _SCALE_AT_DECODE * short_side else None
        return self._ordered(video.read(indices.tolist(), size))

    def test_frames(self, video: Readable, indices: np.ndarray) -> torch.Tensor:
        """Read frames for test crops. Images are scaled exactly and in one step, as the papers do."""
        if isinstance(video, StillImage):
            return self._ordered(video.read(indices.tolist(), self.preprocessing.test_size))
        return self.frames(video, indices, self.preprocessing.test_size)

    def _ordered(self, frames: torch.Tensor) -> torch.Tensor:
        return frames.flip(-1) if self.preprocessing.color_order == "bgr" else frames
