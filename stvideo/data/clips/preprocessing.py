"""How a clip becomes a tensor: the one description that training, evaluation, prediction and checkpoints share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from stvideo.core.errors import StvideoError, nearest
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
            value = getattr(self, key)
            if isinstance(value, list):  # as JSON and YAML have it
                value = tuple(value)
            square = key == "img_size" and isinstance(value, tuple) and len(value) == 2 and value[0] == value[1]
            object.__setattr__(self, key, value[0] if square else value)
        sides = self.img_size if isinstance(self.img_size, tuple) else (self.img_size,)
        short_side = self.test_short_side
        check_sampling(self.sampling)
        for key, is_right, rule in (
            ("mean", _are_numbers(self.mean), "expected finite numbers, one per colour channel, three in all"),
            ("std", _are_numbers(self.std) and min(self.std) > 0, "expected numbers above 0, three in all"),
            ("color_order", self.color_order in COLOR_ORDERS, f"choose {' or '.join(COLOR_ORDERS)}"),
            ("stride", _is_number(self.stride) and self.stride > 0, "expected a number above 0"),
            ("target_fps", _is_number(self.target_fps) and self.target_fps > 0, "expected a number above 0"),
            ("num_frames", _is_count(self.num_frames), "expected a whole number above 0"),
            ("img_size", len(sides) in (1, 2) and all(map(_is_count, sides)), "expected a whole number above 0"),
            (
                "test_short_side",
                short_side is None or _is_count(short_side),
                "expected a whole number above 0, or null",
            ),
        ):
            if not is_right:
                raise _wrong(key, getattr(self, key), rule)
        if short_side is not None and short_side < min(sides):
            raise _wrong("test_short_side", short_side, f"must not be below data.img_size={_plain(self.img_size)}")

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

    def indices(self, video_frames: int, fps: float, **clip: Any) -> np.ndarray:
        """Choose the frames of one clip, which ``clip`` names by the other arguments of `frame_indices`."""
        return frame_indices(
            video_frames,
            fps,
            sampling=self.sampling,
            num_frames=self.num_frames,
            stride=self.stride,
            target_fps=self.target_fps,
            **clip,
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


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e9  # not nan, not inf


def _are_numbers(values: object) -> bool:
    return isinstance(values, tuple) and len(values) == 3 and all(map(_is_number, values))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and _is_number(value) and value > 0


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _wrong(key: str, value: object, rule: str) -> StvideoError:
    return StvideoError(f"data.{key}={_plain(value)}: {rule}")
