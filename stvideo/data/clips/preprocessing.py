"""How a clip becomes a tensor: the one description that training, evaluation, prediction and checkpoints share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from stvideo.core.errors import StvideoError, nearest
from stvideo.data.clips.published import Rule
from stvideo.data.clips.sampling import check_sampling, frame_indices
from stvideo.settings.schema import DataConfig

COLOR_ORDERS = ("rgb", "bgr")
CHOICE_OF_FRAMES = ("sampling", "stride", "target_fps", "test_short_side")
"""Fields that decide which part of a video a clip shows; the others decide the tensor's shape and values."""


@dataclass(frozen=True)
class Preprocessing:
    """From the frames of a video to a normalised clip (3, T, H, W).

    Attributes:
        mean, std: per colour channel, of pixels in [0, 1].
        color_order: ``rgb`` or ``bgr``.
        sampling: ``stride`` or ``segment``, see `stvideo.data.clips.sampling`.
        num_frames: T.
        stride: frames from one sampled frame to the next, counted at ``target_fps``.
        target_fps: frames per second that ``stride`` refers to.
        img_size: pixels of the square clip; (height, width) of a model whose clips are not square.
        test_short_side: pixels of the shorter side before the test crop; None: ``img_size``.

    Raises:
        StvideoError: a value that no clip can have; it names the key as in a configuration, ``data.KEY``.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    color_order: str
    sampling: str
    num_frames: int
    stride: float
    target_fps: float
    img_size: int | tuple[int, int]
    test_short_side: int | None

    def __post_init__(self) -> None:
        for key in self.names():
            if isinstance(getattr(self, key), list):  # as JSON and YAML have it
                object.__setattr__(self, key, tuple(getattr(self, key)))
        if isinstance(self.img_size, tuple) and len(set(self.img_size)) == 1:
            object.__setattr__(self, "img_size", self.img_size[0])
        for key in ("mean", "std"):
            value = getattr(self, key)
            if not isinstance(value, tuple) or len(value) != 3:
                raise _wrong(key, value, "one number per colour channel, three in all")
            if not all(map(_is_finite, value)):
                raise _wrong(key, value, "must be finite numbers")
        if min(self.std) <= 0:
            raise _wrong("std", self.std, "must be numbers above 0")
        check_sampling(self.sampling)
        if self.color_order not in COLOR_ORDERS:
            hint = nearest(str(self.color_order), COLOR_ORDERS)
            raise _wrong("color_order", self.color_order, f"choose {', '.join(COLOR_ORDERS)}{hint}")
        for key in ("stride", "target_fps"):
            if not _is_finite(getattr(self, key)) or getattr(self, key) <= 0:
                raise _wrong(key, getattr(self, key), "expected a number above 0")
        for key in ("num_frames", "img_size", "test_short_side"):
            value = getattr(self, key)
            sides = value if key == "img_size" and isinstance(value, tuple) and len(value) == 2 else (value,)
            if value is None and key == "test_short_side":
                continue
            if not all(type(side) is int and side > 0 for side in sides):
                raise _wrong(key, value, "expected a whole number above 0")
        if isinstance(self.img_size, int) and self.test_size < self.img_size:
            raise _wrong("test_short_side", self.test_short_side, f"must not be below data.img_size={self.img_size}")

    @classmethod
    def from_config(cls, config: DataConfig) -> Preprocessing:
        """Take the description out of the data section of a configuration; raises as the class."""
        return cls(**{key: getattr(config, key) for key in cls.names()})

    @classmethod
    def from_dict(cls, values: Any) -> Preprocessing:
        """Read what `to_dict` gave; a missing key has the default of `DataConfig`.

        Raises:
            StvideoError: it is no mapping, or has an unknown key; else as the class.
        """
        if not isinstance(values, Mapping):
            raise StvideoError(f"expected a mapping of {', '.join(cls.names())}, not {type(values).__name__}")
        for key in values:
            if key not in cls.names():
                raise StvideoError(f"unknown key {key!r}{nearest(str(key), cls.names())}")
        default = DataConfig()
        return cls(**{key: values.get(key, getattr(default, key)) for key in cls.names()})

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """List the names of the fields, which are keys of a configuration's data section."""
        return tuple(field.name for field in fields(cls))

    def to_dict(self) -> dict[str, Any]:
        """Give plain lists, numbers and texts, as a checkpoint's metadata hold them."""
        return {key: _plain(getattr(self, key)) for key in self.names()}

    def apply_to(self, config: DataConfig) -> None:
        """Set every field in the data section of a configuration."""
        for key, value in self.to_dict().items():
            setattr(config, key, value)

    def difference(self, other: Preprocessing | DataConfig) -> dict[str, tuple[Any, Any]]:
        """Compare field by field: key -> (value here, value in ``other``) where they differ."""
        pairs = {key: (_plain(getattr(self, key)), _plain(getattr(other, key))) for key in self.names()}
        return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}

    def indices(
        self,
        video_frames: int,
        fps: float,
        clip: int = 0,
        num_clips: int = 1,
        generator: np.random.Generator | None = None,
        times: np.ndarray | None = None,
        rule: Rule | None = None,
    ) -> np.ndarray:
        """Choose the frames of one clip, as `frame_indices` does."""
        return frame_indices(
            video_frames,
            fps,
            sampling=self.sampling,
            num_frames=self.num_frames,
            stride=self.stride,
            target_fps=self.target_fps,
            clip=clip,
            num_clips=num_clips,
            generator=generator,
            times=times,
            rule=rule,
        )

    @property
    def clip_shape(self) -> tuple[int, int, int, int, int]:
        """Shape of one clip as a model takes it, (1, 3, T, H, W)."""
        height, width = self.img_size if isinstance(self.img_size, tuple) else (self.img_size, self.img_size)
        return (1, 3, self.num_frames, height, width)

    @property
    def test_size(self) -> int:
        """Pixels of the shorter side from which the test crops of ``img_size`` are cut."""
        return self.test_short_side or self.square_size

    @property
    def test_share(self) -> float:
        """Share of the shorter side that a test crop covers."""
        return self.square_size / self.test_size

    @property
    def square_size(self) -> int:
        """Pixels of height and width; raises `StvideoError` where clips are not square, which no video is read as."""
        if isinstance(self.img_size, tuple):
            raise _wrong("img_size", self.img_size, "clips read from videos are square; expected one number")
        return self.img_size


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _wrong(key: str, value: object, rule: str) -> StvideoError:
    return StvideoError(f"data.{key}={_plain(value)}: {rule}")
