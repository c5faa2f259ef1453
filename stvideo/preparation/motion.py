"""Draw a small data set of clips whose class is a motion; see data_tools/motion.py."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from stvideo.core.errors import StvideoError, nearest
from stvideo.core.files import replacing, write_atomically
from stvideo.preparation.jobs import Alive, Failure, count_workers, run_jobs
from stvideo.preparation.terminal import progress

MOTIONS = ("left", "right", "up", "down", "toward", "away", "clockwise", "counter-clockwise")
VERSION = 1  # raised when the same settings come to mean other clips
_ABOUT = "motion.json"  # the settings, beside the clips
_CLIP_SECONDS = 600.0  # that drawing one may take

# The path of the object, as shares of the frame's side. Every class draws all of these in the same way; its own
# quantity is then swept over its range during the clip instead of standing somewhere in it.
SWEEP_POSITION = 0.42  # how far the object moves
SWEEP_LOG_SIZE = 0.75  # natural logarithm of how much it grows
SWEEP_ANGLE = 2.8  # radians that it turns
RADIUS = 0.2
CENTER_SPREAD = 0.2  # the middle of the path lies that far from the middle of the frame at most
SPEED = (0.75, 1.25)  # of the sweeps
SHADING = 0.6  # how much lighter one side of the object is, of the full range
BACKGROUND_CONTRAST = 0.2


@dataclass
class MotionSettings:
    """What can be given as ``key=value``."""

    classes: list[str] = field(default_factory=lambda: list(MOTIONS))
    train_per_class: int = 800
    test_per_class: int = 100
    size: int = 64
    frames: int = 16
    fps: int = 15
    seed: int = 0
    workers: int = 0
    overwrite: bool = False

    def check(self) -> None:
        """Raise `StvideoError`, naming the setting, if no clips can be drawn so."""
        unknown = next((name for name in self.classes if name not in MOTIONS), None)
        if unknown is not None or len(set(self.classes)) != len(self.classes) or not self.classes:
            hint = nearest(unknown or "", MOTIONS)
            raise StvideoError(
                f"classes={','.join(self.classes)}: expected some of {', '.join(MOTIONS)}, each once{hint}"
            )
        for name, smallest in (("train_per_class", 1), ("test_per_class", 1), ("frames", 2), ("size", 16), ("fps", 1)):
            if getattr(self, name) < smallest:
                raise StvideoError(f"{name}={getattr(self, name)}: expected at least {smallest}")
        if self.size % 2:
            raise StvideoError(f"size={self.size}: H.264 needs an even number of pixels")
        if self.seed < 0:
            raise StvideoError(f"seed={self.seed}: expected 0 or more")


class Clip(NamedTuple):
    """Where a clip is written, relative to ``output``, and from which seed it is drawn."""

    output: Path
    path: str
    motion: str
    seed: tuple[int, ...]
    settings: MotionSettings


def write_motion(output: Path, settings: MotionSettings) -> int:
    """Write the whole data set to the folder ``output``; returns how many clips had to be written.

    Raises:
        StvideoError: the folder holds something else or cannot be written, or a setting is wrong.
    """
    settings.check()
    counts = {"train": settings.train_per_class, "val": settings.test_per_class}
    try:
        _claim(output, settings)
        for split, count in counts.items():
            lines = []
            for label, motion in enumerate(settings.classes):
                (output / split / motion).mkdir(parents=True, exist_ok=True)
                lines += [f"{split}/{motion}/{number:06d}.mp4 {label}\n" for number in range(count)]
            write_atomically(output / f"{split}.txt", "".join(lines))
        write_atomically(output / "classes.txt", "".join(f"{motion}\n" for motion in settings.classes))
    except OSError as error:
        raise StvideoError(f"{output}: cannot be written ({error.strerror})") from None
    clips = [
        # A class keeps its clips when others are added or left out, so its name goes into the seed, not its number.
        Clip(output, path, motion, (settings.seed, side, zlib.crc32(motion.encode()), number), settings)
        for side, (split, count) in enumerate(counts.items())
        for motion in settings.classes
        for number in range(count)
        for path in [f"{split}/{motion}/{number:06d}.mp4"]
        if settings.overwrite or not (output / path).exists()
    ]
    if clips:
        workers = count_workers(settings.workers, len(clips))
        with progress(len(clips), "motion clips") as step:
            for clip, outcome in run_jobs(write_clip, clips, workers=workers, timeout=_CLIP_SECONDS):
                if isinstance(outcome, Failure):
                    raise StvideoError(f"{output / clip.path}: cannot be written ({outcome.reason})")
                step(False)
    return len(clips)


def write_clip(clip: Clip, alive: Alive) -> None:
    """Draw and encode one clip, in a worker process."""
    size, frames = clip.settings.size, clip.settings.frames
    pictures = draw_clip(clip.motion, size, frames, np.random.default_rng(clip.seed))
    with replacing(clip.output / clip.path) as unfinished:
        encode_h264(unfinished, pictures, clip.settings.fps)


def encode_h264(path: Path, frames: np.ndarray, fps: int) -> None:
    """Write frames (T, H, W, 3) uint8 as an MP4 that starts with a key frame; one thread, so always the same bytes."""
    options = {"crf": "18", "preset": "veryfast", "bf": "0", "threads": "1", "x264-params": "log-level=none"}
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def _claim(output: Path, settings: MotionSettings) -> None:
    """Make the folder ours, unless it is somebody else's or holds other pictures.

    More clips per class and other classes may be added to a folder; other pictures may not.
    """
    output.mkdir(parents=True, exist_ok=True)
    about = output / _ABOUT
    wanted = {key: getattr(settings, key) for key in ("size", "frames", "fps", "seed")} | {"version": VERSION}
    if any(output.iterdir()) and not settings.overwrite:
        try:
            found = json.loads(about.read_text(encoding="utf-8"))
            differing = [key for key in wanted if found.get(key) != wanted[key]]
        except (OSError, ValueError, AttributeError):
            raise StvideoError(
                f"{output}: holds files that are not of this tool; name another folder, or overwrite=true"
            ) from None
        for key in differing:
            raise StvideoError(
                f"{output}: holds clips made with {key}={found.get(key)}, not {wanted[key]}; name another folder, or "
                "overwrite=true"
            )
    write_atomically(about, json.dumps(wanted, indent=1) + "\n")


def draw_clip(motion: str, size: int, frames: int, generator: np.random.Generator) -> np.ndarray:
    """Draw one clip of ``motion``: uint8 (frames, size, size, 3)."""
    time = np.linspace(-0.5, 0.5, frames)
    # Where each quantity stands in its range: still somewhere in it, unless this class sweeps it.
    still = generator.uniform(-0.5, 0.5, 4)
    quantities = {name: np.full(frames, still[i]) for i, name in enumerate(("x", "y", "log_size", "angle"))}
    swept, direction = {
        "left": ("x", -1),
        "right": ("x", 1),
        "up": ("y", -1),
        "down": ("y", 1),
        "toward": ("log_size", 1),
        "away": ("log_size", -1),
        "clockwise": ("angle", 1),
        "counter-clockwise": ("angle", -1),
    }[motion]
    quantities[swept] = direction * time
    speed = generator.uniform(*SPEED)
    center = 0.5 + generator.uniform(-CENTER_SPREAD, CENTER_SPREAD, 2)
    x = center[0] + SWEEP_POSITION * speed * quantities["x"]
    y = center[1] + SWEEP_POSITION * speed * quantities["y"]
    radius = RADIUS * generator.uniform(0.85, 1.15) * np.exp(SWEEP_LOG_SIZE * speed * quantities["log_size"])
    angle = generator.uniform(0, 2 * np.pi) + SWEEP_ANGLE * speed * quantities["angle"]

    background = _clutter(size, generator)
    texture = _Texture(generator)
    corners = generator.integers(3, 7)  # of the outline
    grid = (np.arange(size) + 0.5) / size
    dx = grid[None, None, :] - x[:, None, None]
    dy = grid[None, :, None] - y[:, None, None]
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    # Rows run downwards, so a growing angle turns clockwise on the screen.
    u = (cos * dx + sin * dy) / radius[:, None, None]
    v = (-sin * dx + cos * dy) / radius[:, None, None]
    distance = np.hypot(u, v) * (1 + 0.12 * np.cos(corners * np.arctan2(v, u)))
    edge = np.clip((1 - distance) * radius[:, None, None] * size + 0.5, 0, 1)[..., None]  # one pixel soft
    picture = edge * texture(u, v) + (1 - edge) * background
    light = 1 + 0.04 * generator.standard_normal(frames)[:, None, None, None]
    noise = 0.02 * generator.standard_normal(picture.shape)
    return (np.clip(picture * light + noise, 0, 1) * 255).round().astype(np.uint8)


class _Texture:
    """Stripes, checks or rings in two colours, light on one side and dark on the other so that every angle shows."""

    def __init__(self, generator: np.random.Generator) -> None:
        self.colors = _two_colors(generator)
        self.frequency = generator.uniform(4.0, 8.0)
        self.phase = generator.uniform(0, 2 * np.pi)
        self.bend = generator.uniform(-1.0, 1.0)
        self.kind = int(generator.integers(3))

    def __call__(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Sample colours in [0, 1] at the object's own coordinates (1 is its radius); a last axis of 3 is added."""
        wave = np.sin(self.frequency * (u + self.bend * v * v) + self.phase)
        if self.kind == 1:
            wave = wave * np.sin(self.frequency * v)
        elif self.kind == 2:
            wave = np.sin(self.frequency * np.hypot(u, v) + self.phase)
        share = (0.5 + 0.5 * np.tanh(2 * wave))[..., None]
        color = share * self.colors[0] + (1 - share) * self.colors[1]
        return np.clip(color + SHADING * np.clip(v, -1, 1)[..., None], 0, 1)


def _clutter(size: int, generator: np.random.Generator) -> np.ndarray:
    """Draw a still background (size, size, 3) in [0, 1]: soft clouds of colour under hard-edged discs and bars."""
    grid = (np.arange(size) + 0.5) / size
    x, y = grid[None, :], grid[:, None]
    picture = np.zeros((size, size, 3))
    for _ in range(6):
        fx, fy = generator.uniform(-9, 9, 2)
        wave = np.sin(fx * x + fy * y + generator.uniform(0, 2 * np.pi))[..., None]
        picture = picture + 0.15 * wave * generator.standard_normal(3)
    for _ in range(10):
        cx, cy = generator.random(2)
        w, h = generator.uniform(0.02, 0.12, 2)
        turn = generator.uniform(0, np.pi)
        u, v = np.cos(turn) * (x - cx) + np.sin(turn) * (y - cy), -np.sin(turn) * (x - cx) + np.cos(turn) * (y - cy)
        inside = (u / w) ** 2 + (v / h) ** 2 < 1 if generator.random() < 0.5 else (abs(u) < w) & (abs(v) < h)
        picture = np.where(inside[..., None], generator.uniform(-1, 1, 3), picture)
    return np.clip(0.45 + BACKGROUND_CONTRAST * picture, 0, 1)


def _two_colors(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two colours that differ visibly."""
    while True:
        first, second = generator.random(3), generator.random(3)
        if np.abs(first - second).sum() > 0.9:
            return first, second
