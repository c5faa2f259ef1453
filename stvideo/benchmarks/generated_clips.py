"""Generate videos to measure with where there are none: H.264 files like those of Kinetics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np

SIZE, FRAMES, RATE = (256, 340), 300, 30
"""What Kinetics clips usually are: ten seconds, cut to a shorter side of 256 pixels."""
GRAIN = 13  # levels of noise; gives about a megabit per second, as Kinetics clips have


def generate_clip(path: Path, seed: int, size: tuple[int, int] = SIZE, frames: int = FRAMES) -> None:
    """Encode a textured picture under a camera that pans and sways, with film grain.

    As most Kinetics copies are, by x264 with its own defaults: groups of up to 250 frames with B-frames, which is what
    makes reading single frames costly. Two seconds on one core.

    Args:
        path: the file to write.
        seed: of texture, camera and grain.
        size: (height, width) in pixels, even numbers.
        frames: at 30 frames per second.
    """
    generator = np.random.default_rng(seed)
    side = 2 * max(size)
    picture = np.zeros((side, side, 3))
    for cell in (4, 12, 40, 128):  # from fine to coarse
        few = generator.uniform(-1, 1, (side // cell + 1, side // cell + 1, 3))
        picture += few.repeat(cell, 0).repeat(cell, 1)[:side, :side] * np.sqrt(cell)
    picture = 255 * (picture - picture.min()) / (picture.max() - picture.min())
    room = side - np.array(size)
    start, speed = room * generator.uniform(0.3, 0.7, 2), generator.uniform(-0.5, 0.5, 2)
    with av.open(str(path), "w") as container:
        options = {"crf": "23", "preset": "fast", "x264-params": "log-level=none"}
        stream: Any = container.add_stream("libx264", rate=RATE, options=options)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        for number in range(frames):
            place = start + speed * number + 6 * np.sin(number / np.array([9.0, 13.0]))
            top, left = np.clip(place, 0, room).astype(int)
            view = picture[top : top + size[0], left : left + size[1]]
            noisy = np.clip(view + generator.integers(-GRAIN, GRAIN + 1, (*size, 1)), 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noisy, format="rgb24")))
        container.mux(stream.encode(None))
