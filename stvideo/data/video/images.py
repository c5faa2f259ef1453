"""Read image files as clips of one frame, so that image folders train and evaluate like folders of videos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from stvideo.data.video.packets import UnreadableVideo, VideoInfo


class StillImage:
    """An opened image, with the interface of `stvideo.data.video.video.Video`.

    Pixels are taken as they are stored, like torchvision's ``ImageFolder`` does (no EXIF rotation).

    Raises:
        UnreadableVideo: the file is missing, no image, or damaged.
    """

    decoder = "pillow"
    num_frames = 1
    fps = 1.0

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with Image.open(self.path) as image:
                self._image = image.convert("RGB")
        except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise UnreadableVideo(self.path, f"not a readable image ({' '.join(str(error).split())[:120]})") from None

    def __enter__(self) -> StillImage:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Nothing is held open."""

    @property
    def times(self) -> np.ndarray:
        """Seconds at which the one frame is shown: 0."""
        return np.zeros(1)

    @property
    def short_side(self) -> int:
        """Pixels of the shorter side."""
        return min(self._image.size)

    @property
    def info(self) -> VideoInfo:
        """Describe the image as a video of one frame."""
        return VideoInfo(1, self.fps, *self._image.size, codec="image", container="image")

    def read(self, indices: Sequence[int], size: int | tuple[int, int] | None = None) -> torch.Tensor:
        """Repeat the image per index, uint8 (T, H, W, 3); ``size`` as for `Video.read`, resized bicubically."""
        image = self._image
        if isinstance(size, int):
            width, height = image.size
            short = min(width, height)
            size = (int(size * height / short), int(size * width / short))  # cut to integers as torchvision does
        if size is not None:
            image = image.resize((size[1], size[0]), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(image)).unsqueeze(0).repeat(len(indices), 1, 1, 1)
