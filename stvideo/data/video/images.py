"""Read image files as clips of one frame, so that image folders train and evaluate like folders of videos."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from PIL import Image

from stvideo.data.video.packets import DAMAGE, UnreadableVideo, VideoInfo

_DAMAGE = (*DAMAGE, EOFError, SyntaxError, TypeError, struct.error, zlib.error, Image.DecompressionBombError)
_ANIMATED = ("WEBP", "PNG", "GIF")  # several pages of a TIFF are no video


class StillImage:
    """An opened image, with the interface of `stvideo.data.video.video.Video`. Animated ones have several frames.

    Pixels are taken as they are stored, like torchvision's ``ImageFolder`` does (no EXIF rotation).

    Raises:
        UnreadableVideo: the file is missing, no image, or damaged.
    """

    decoder = "pillow"

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._images: list[Image.Image] = []
        seconds: list[float] = []
        try:
            with Image.open(self.path) as image:
                for number in range(getattr(image, "n_frames", 1) if image.format in _ANIMATED else 1):
                    image.seek(number)
                    self._images.append(image.convert("RGB"))
                    seconds.append(float(image.info.get("duration", 0)) / 1000)
        except _DAMAGE as error:
            raise UnreadableVideo(self.path, f"not a readable image ({' '.join(str(error).split())[:120]})") from None
        self.num_frames = len(self._images)
        self.fps = self.num_frames / sum(seconds) if self.num_frames > 1 and sum(seconds) > 0 else 1.0
        self._times = (
            np.append(0.0, np.cumsum(seconds)[:-1]) if sum(seconds) > 0 else np.arange(len(seconds)) / self.fps
        )

    def __enter__(self) -> StillImage:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Nothing is held open."""

    @property
    def times(self) -> np.ndarray:
        """Seconds at which each frame is shown, the first at 0."""
        return self._times

    @property
    def short_side(self) -> int:
        """Pixels of the shorter side."""
        return min(self._images[0].size)

    @property
    def info(self) -> VideoInfo:
        """Describe the image as a video."""
        return VideoInfo(self.num_frames, self.fps, *self._images[0].size, codec="image", container="image")

    def read(self, indices: Sequence[int], size: int | tuple[int, int] | None = None) -> torch.Tensor:
        """Read frames ``indices``, uint8 (T, H, W, 3); a still image gives its one frame for each.

        ``size`` is as for `Video.read`, resized bicubically.
        """
        if isinstance(size, int):
            width, height = self._images[0].size
            short = min(width, height)
            size = (int(size * height / short), int(size * width / short))  # cut to integers as torchvision does
        pictures: dict[int, torch.Tensor] = {}
        for index in {int(index) for index in indices}:
            image = self._images[index if self.num_frames > 1 else 0]
            if size is not None:
                image = image.resize((size[1], size[0]), Image.Resampling.BICUBIC)
            pictures[index] = torch.from_numpy(np.array(image))
        return torch.stack([pictures[int(index)] for index in indices])
