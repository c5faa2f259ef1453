"""Videos to measure with where there are none: H.264 files like those of Kinetics, drawn and encoded here."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

WIDTH, HEIGHT, FRAMES, RATE = 340, 256, 300, 30
"""What Kinetics clips usually are: ten seconds, cut to a shorter side of 256 pixels."""
GRAIN = 13  # levels of noise; gives about a megabit per second, as Kinetics clips have


def generated_clips(
    folder: Path,
    count: int,
    *,
    width: int = WIDTH,
    height: int = HEIGHT,
    frames: int = FRAMES,
    rate: int = RATE,
    seed: int = 0,
) -> list[Path]:
    """``count`` clips in ``folder``; those that are there already are left alone, so a broken-off run goes on.

    They are encoded as most Kinetics copies are, by x264 with its own defaults: groups of up to 250 frames with
    B-frames, which is what makes reading single frames costly. Two seconds each on one core.

    Args:
        folder: made if it is not there.
        width, height: pixels, even numbers.
        frames: of each clip.
        rate: frames per second.
        seed: clip i shows the same whatever ``count`` is.

    Returns:
        The paths, in order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"clip_{width}x{height}x{frames}_{seed}_{number:04d}.mp4" for number in range(count)]
    missing = [number for number, path in enumerate(paths) if not path.exists()]
    for number in tqdm(missing, desc="drawing clips", unit="clip", leave=False, disable=None if missing else True):
        _encode(paths[number], _Scene(width, height, np.random.default_rng((seed, number))), frames, rate)
    return paths


class _Scene:
    """A textured picture under a camera that pans and sways, with film grain."""

    def __init__(self, width: int, height: int, generator: np.random.Generator) -> None:
        self.width, self.height, self.generator = width, height, generator
        side = 2 * max(width, height)
        picture = np.zeros((side, side, 3))
        for cell in (4, 12, 40, 128):  # from fine to coarse
            few = generator.uniform(-1, 1, (side // cell + 1, side // cell + 1, 3))
            picture += few.repeat(cell, 0).repeat(cell, 1)[:side, :side] * np.sqrt(cell)
        picture = (picture - picture.min()) / (picture.max() - picture.min())
        self.picture = (255 * picture).astype(np.uint8)
        self.speed = generator.uniform(-0.5, 0.5, 2)
        self.room = np.array([side - height, side - width])
        self.start = self.room * generator.uniform(0.3, 0.7, 2)

    def frame(self, number: int) -> NDArray[np.uint8]:
        """(height, width, 3) uint8."""
        sway = 6 * np.sin(number / np.array([9.0, 13.0]))
        top, left = np.clip(self.start + self.speed * number + sway, 0, self.room).astype(int)
        view = self.picture[top : top + self.height, left : left + self.width].astype(np.int16)
        grain = self.generator.integers(-GRAIN, GRAIN + 1, view.shape[:2], dtype=np.int16)[..., None]
        return np.clip(view + grain, 0, 255).astype(np.uint8)


def _encode(path: Path, scene: _Scene, frames: int, rate: int) -> None:
    temporary = path.with_name(f".{path.stem}.part{path.suffix}")
    with av.open(str(temporary), "w") as container:
        options = {"crf": "23", "preset": "fast", "x264-params": "log-level=none"}
        stream: Any = container.add_stream("libx264", rate=Fraction(rate), options=options)
        stream.width, stream.height, stream.pix_fmt = scene.width, scene.height, "yuv420p"
        for number in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(scene.frame(number), format="rgb24")))
        container.mux(stream.encode(None))
    temporary.replace(path)
