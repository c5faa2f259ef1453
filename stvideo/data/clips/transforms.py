"""Turn frames into clips: the same crop, flip and colours for every frame of a clip.

Shapes: frames (T, H, W, 3) uint8 as decoded; clips (3, T, H, W) uint8 as the loader delivers them; `normalize` turns a
batch (B, 3, T, H, W) into floats on the device. Everything random is drawn from the generator that is passed in.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from stvideo.core.errors import StvideoError
from stvideo.data.video.display import scale_pictures

ASPECT_RATIOS = (3 / 4, 4 / 3)  # of a random resized crop, as for ImageNet
TIMM_TO_TORCHVISION = 3  # RandAugment magnitudes: timm counts to 10, torchvision to 30


@dataclass(frozen=True)
class Crop:
    """A box of the decoded frames in pixels."""

    top: int
    left: int
    height: int
    width: int


def square_crop(height: int, width: int, share: float, down: float, right: float) -> Crop:
    """Place a square that covers ``share`` of the shorter side, at ``down`` and ``right`` in [0, 1].

    A crop of ``size`` pixels once the shorter side has been scaled to ``short_side`` is the share ``size /
    short_side``: cutting first and scaling only the box gives the same picture for less work.
    """
    side = min(height, width, max(1, round(share * min(height, width))))
    return Crop(round((height - side) * down), round((width - side) * right), side, side)


def random_area_crop(height: int, width: int, area: Sequence[float], generator: np.random.Generator) -> Crop:
    """Draw a box that covers a random share of the frame within ``area``, of random aspect ratio (Inception crop)."""
    for _ in range(10):
        target = height * width * generator.uniform(area[0], area[1])
        ratio = math.exp(generator.uniform(math.log(ASPECT_RATIOS[0]), math.log(ASPECT_RATIOS[1])))
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            top, left = generator.integers(0, height - h + 1), generator.integers(0, width - w + 1)
            return Crop(int(top), int(left), h, w)
    return square_crop(height, width, 1.0, 0.5, 0.5)


def view_crop(height: int, width: int, crop: int, num_crops: int, share: float = 1.0) -> Crop:
    """Place square test crop ``crop`` of ``num_crops``: evenly along the longer side, centred on the other.

    ``share`` of the shorter side is covered: 1 is all of it, 224 / 256 the usual centre crop of images.
    """
    place = 0.5 if num_crops == 1 else crop / (num_crops - 1)
    return square_crop(height, width, share, *((place, 0.5) if height > width else (0.5, place)))


def crop_and_resize(frames: torch.Tensor, crop: Crop, size: int) -> torch.Tensor:
    """Cut ``crop`` out of frames (T, H, W, 3) and scale it: uint8 (T, 3, size, size), antialiased bilinear."""
    boxed = frames[:, crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
    pictures = boxed.permute(0, 3, 1, 2)
    return pictures if (crop.height, crop.width) == (size, size) else scale_pictures(pictures, (size, size))


class TrainTransform:
    """Crop, flip, change colours and augment at random, drawn once per clip.

    Args:
        size: pixels of the square result.
        short_side: range in pixels from which the shorter side is drawn before the crop (published recipe).
        random_resized_crop: range of the area share instead of ``short_side``.
        flip: mirror half of the clips. Where left and right make the class, the label has to follow: `draw` tells
            whether a clip was mirrored, and `mirrored_classes` which class it then shows.
        color_jitter: strength of brightness, contrast, saturation (a quarter of it for hue).
        rand_augment: e.g. ``"m7-n4"``: 4 operations of magnitude 7 (of 10).
        random_erasing: probability that a box of the clip is blanked.
        fill: 0..255 per channel, what erased and uncovered pixels become.
    """

    def __init__(
        self,
        size: int,
        *,
        short_side: Sequence[int] = (256, 320),
        random_resized_crop: Sequence[float] | None = None,
        flip: bool = True,
        color_jitter: float = 0.0,
        rand_augment: str | None = None,
        random_erasing: float = 0.0,
        fill: Sequence[float] = (114.75, 114.75, 114.75),
    ) -> None:
        if len(short_side) != 2 or short_side[0] > short_side[1] or short_side[0] < size:
            raise StvideoError(
                f"data.short_side={list(short_side)}: expected [smallest, largest], smallest >= data.img_size={size}"
            )
        if random_resized_crop is not None and not (
            len(random_resized_crop) == 2 and 0 < random_resized_crop[0] <= random_resized_crop[1] <= 1
        ):
            raise StvideoError(f"data.random_resized_crop={list(random_resized_crop)}: expected e.g. [0.08, 1.0]")
        if not 0 <= random_erasing <= 1:
            raise StvideoError(f"data.random_erasing={random_erasing}: a probability lies in [0, 1]")
        if color_jitter < 0:
            raise StvideoError(f"data.color_jitter={color_jitter}: a strength is not negative")
        self.size, self.short_side, self.area, self.flip = size, short_side, random_resized_crop, flip
        self.augmentations = _augmentations(color_jitter, rand_augment, random_erasing, [round(f) for f in fill])

    def __call__(self, frames: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        """Transform frames (T, H, W, 3) uint8 to a clip (3, T, size, size) uint8."""
        return self.draw(frames, generator)[0]

    def draw(self, frames: torch.Tensor, generator: np.random.Generator) -> tuple[torch.Tensor, bool]:
        """Transform frames (T, H, W, 3) uint8 to a clip (3, T, size, size) uint8; tells too whether it was mirrored."""
        height, width = frames.shape[1:3]
        if self.area is not None:
            crop = random_area_crop(height, width, self.area, generator)
        else:
            short_side = generator.uniform(self.short_side[0], self.short_side[1])
            crop = square_crop(height, width, self.size / short_side, *generator.random(2))
        clip = crop_and_resize(frames, crop, self.size)
        mirrored = self.flip and generator.random() < 0.5
        if mirrored:
            clip = clip.flip(-1)
        if self.augmentations:
            # torchvision draws from the global generator: lend it one of this sample's own, and give it back.
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(generator.integers(2**63)))
                for augmentation in self.augmentations:
                    clip = augmentation(clip)
        return clip.transpose(0, 1).contiguous(), mirrored


def _augmentations(
    color_jitter: float, rand_augment: str | None, random_erasing: float, fill: list[int]
) -> list[torch.nn.Module]:
    """Make torchvision's modules. It is imported here: loader processes that need none of it start sooner."""
    modules: list[torch.nn.Module] = []
    if not (color_jitter or rand_augment is not None or random_erasing):
        return modules
    from torchvision.transforms import InterpolationMode, v2

    if rand_augment is not None:
        magnitude, operations = parse_rand_augment(rand_augment)
        bilinear = InterpolationMode.BILINEAR
        modules.append(v2.RandAugment(num_ops=operations, magnitude=magnitude, interpolation=bilinear, fill=fill))
    if color_jitter:
        modules.append(v2.ColorJitter(color_jitter, color_jitter, color_jitter, min(color_jitter / 4, 0.5)))
    if random_erasing:
        modules.append(v2.RandomErasing(p=random_erasing, value=fill))
    return modules


def mirrored_classes(classes: Sequence[str]) -> np.ndarray:
    """Map each class to that of its mirrored videos, int64 (K,): left and right change places.

    ``"Turning the camera left while filming something"`` becomes the class with ``right`` in place of ``left``, and a
    class whose name has neither word stays itself. ``right`` alone may mean other things ("right out"), so a class
    that names only the right is left as it is when no class is its mirror image.

    Raises:
        StvideoError: a class that goes to the left, or from side to side, without its mirror image in the list:
            mirrored, its videos would be of no class.
    """
    numbers = {name: number for number, name in enumerate(classes)}
    mirrored = np.arange(len(classes))
    for number, name in enumerate(classes):
        other = _SIDES.sub(_other_side, name)
        if other in numbers:
            mirrored[number] = numbers[other]
        elif "left" in [side.lower() for side in _SIDES.findall(name)]:
            raise StvideoError(
                f"data.flip=true: mirrored, videos of class {name!r} would show {other!r}, which is no class of the "
                "list; set data.flip=false"
            )
    return mirrored


_SIDES = re.compile(r"(?<![a-z])(?:left|right)(?![a-z])", re.IGNORECASE)  # whole words, also in "move_left"


def _other_side(match: re.Match[str]) -> str:
    word = match[0]
    other = {"left": "right", "right": "left"}[word.lower()]
    return other.upper() if word.isupper() else other.capitalize() if word[0].isupper() else other


class TestTransform:
    """One of the square test crops, scaled to ``size``."""

    __test__ = False  # not a pytest class

    def __init__(self, size: int, num_crops: int, share: float = 1.0) -> None:
        self.size, self.num_crops, self.share = size, num_crops, share

    def __call__(self, frames: torch.Tensor, crop: int) -> torch.Tensor:
        """Transform frames (T, H, W, 3) uint8 to a clip (3, T, size, size) uint8, crop number ``crop``."""
        box = view_crop(frames.shape[1], frames.shape[2], crop, self.num_crops, self.share)
        return crop_and_resize(frames, box, self.size).transpose(0, 1).contiguous()


def normalize(
    video: torch.Tensor, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """uint8 (B, 3, T, H, W) or (3, T, H, W) -> ``(video / 255 - mean) / std`` on the video's device.

    Channels stay in the order in which the loader delivers them (``data.color_order``).
    """
    shape = (3, 1, 1, 1)
    scale = torch.tensor([1 / (255 * s) for s in std], device=video.device).view(shape)
    shift = torch.tensor([m / s for m, s in zip(mean, std, strict=True)], device=video.device).view(shape)
    return (video.float() * scale - shift).to(dtype)


def parse_rand_augment(text: str) -> tuple[int, int]:
    """Parse ``"m7-n4"`` to (torchvision magnitude, number of operations); raises `StvideoError`."""
    match = re.fullmatch(r"(?:rand-)?m(\d+)-n(\d+)", str(text))
    if match is None or int(match[1]) > 10 or int(match[2]) < 1:
        raise StvideoError(f"data.rand_augment={text!r}: expected e.g. m7-n4 (magnitude 0 to 10, number of operations)")
    return int(match[1]) * TIMM_TO_TORCHVISION, int(match[2])
