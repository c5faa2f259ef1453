"""Write a small data set of H.264 clips whose class is a motion, for demos and tests of video models.

A textured object moves over a cluttered background: left, right, up, down, toward the camera, away from it, or turning
clockwise or counter-clockwise. One frame does not give the class away: a "left" clip played backwards is a "right"
clip, and in every class the object appears at the same places, sizes and angles. Training and validation clips have
textures and backgrounds of their own.

    python data_tools/motion.py /tmp/motion                                 800 + 100 clips per class
    python data_tools/motion.py /tmp/motion --classes left right --train-per-class 50 --test-per-class 20

writes, like Kinetics in class folders,

    OUTPUT/train/left/000000.mp4 ...   OUTPUT/val/left/000000.mp4 ...
    OUTPUT/train.txt  OUTPUT/val.txt   lines "path label"
    OUTPUT/classes.txt                 class names in the order of the labels

which training reads with data.root=OUTPUT. A second run with the same settings finishes what is missing and leaves the
rest alone. The same settings and seed write the same clips, whatever the number of processes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import zlib
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from stvideo.core.errors import StvideoError
from stvideo.settings import cli

MOTIONS = ("left", "right", "up", "down", "toward", "away", "clockwise", "counter-clockwise")
SPLITS = ("train", "val")

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


@dataclass(frozen=True)
class Settings:
    """What the clips look like; written beside them as motion.json."""

    classes: tuple[str, ...]
    train_per_class: int
    test_per_class: int
    size: int
    frames: int
    fps: int
    seed: int
    version: int = 1  # raised when the same settings come to mean other clips


def draw_clip(motion: str, size: int, frames: int, generator: np.random.Generator) -> np.ndarray:
    """One clip of ``motion`` as uint8 (frames, size, size, 3)."""
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
        """Colours in [0, 1] at the object's own coordinates (1 is its radius); a last axis of 3 is added."""
        wave = np.sin(self.frequency * (u + self.bend * v * v) + self.phase)
        if self.kind == 1:
            wave = wave * np.sin(self.frequency * v)
        elif self.kind == 2:
            wave = np.sin(self.frequency * np.hypot(u, v) + self.phase)
        share = (0.5 + 0.5 * np.tanh(2 * wave))[..., None]
        color = share * self.colors[0] + (1 - share) * self.colors[1]
        return np.clip(color + SHADING * np.clip(v, -1, 1)[..., None], 0, 1)


def _clutter(size: int, generator: np.random.Generator) -> np.ndarray:
    """A still background (size, size, 3) in [0, 1]: soft clouds of colour under hard-edged discs and bars."""
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


def clip_path(split: str, motion: str, number: int) -> str:
    """Where a clip lies, relative to the output folder."""
    return f"{split}/{motion}/{number:06d}.mp4"


def write_clip(job: tuple[str, str, int], output: Path, settings: Settings) -> bool:
    """Draw and encode one clip unless it is there already; returns whether it had to be written."""
    split, motion, number = job
    path = output / clip_path(split, motion, number)
    if path.exists():
        return False
    # A class keeps its clips when others are added or left out, so its name goes in, not its number.
    generator = np.random.default_rng((settings.seed, SPLITS.index(split), zlib.crc32(motion.encode()), number))
    clip = draw_clip(motion, settings.size, settings.frames, generator)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        encode_h264(unfinished, clip, settings.fps)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return True


def encode_h264(path: Path, frames: np.ndarray, fps: int) -> None:
    """Write frames (T, H, W, 3) uint8 as an MP4 that starts with a key frame; one thread, so always the same bytes."""
    import av

    options = {"crf": "18", "preset": "veryfast", "bf": "0", "threads": "1", "x264-params": "log-level=none"}
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def write_motion(output: Path, settings: Settings, workers: int = 0, progress: bool = True) -> int:
    """Write the whole data set; returns how many clips had to be written.

    Args:
        output: folder, made if it is missing.
        settings: what to write.
        workers: processes; 0 takes one per CPU core.
        progress: show a progress bar.

    Raises:
        StvideoError: the folder holds other clips or cannot be written.
    """
    _check_settings(settings)
    try:
        output.mkdir(parents=True, exist_ok=True)
        _check_same_settings(output / "motion.json", settings)
        for split in SPLITS:
            for motion in settings.classes:
                (output / split / motion).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StvideoError(f"{output}: cannot be written ({error.strerror})") from None
    counts = {"train": settings.train_per_class, "val": settings.test_per_class}
    jobs = [
        (split, motion, number) for split in SPLITS for motion in settings.classes for number in range(counts[split])
    ]
    work = partial(write_clip, output=output, settings=settings)
    workers = min(workers or os.cpu_count() or 1, len(jobs))
    written = 0
    # fork where there is one: other ways import torch again in every process before the first clip.
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    with multiprocessing.get_context(method).Pool(workers) as pool:
        done = pool.imap_unordered(work, jobs, chunksize=16)
        for new in tqdm(done, total=len(jobs), desc="motion clips", unit=" clips", disable=None if progress else True):
            written += new
    for split in SPLITS:
        lines = [
            f"{clip_path(split, motion, number)} {label}\n"
            for label, motion in enumerate(settings.classes)
            for number in range(counts[split])
        ]
        (output / f"{split}.txt").write_text("".join(lines), encoding="utf-8")
    (output / "classes.txt").write_text("".join(f"{motion}\n" for motion in settings.classes), encoding="utf-8")
    return written


def _check_settings(settings: Settings) -> None:
    if len(set(settings.classes)) != len(settings.classes):
        raise StvideoError(f"--classes: a motion is named twice in {' '.join(settings.classes)}")
    for name, smallest in (("train_per_class", 1), ("test_per_class", 1), ("frames", 2), ("size", 16), ("fps", 1)):
        if getattr(settings, name) < smallest:
            raise StvideoError(f"--{name.replace('_', '-')} {getattr(settings, name)}: expected at least {smallest}")
    if settings.size % 2:
        raise StvideoError(f"--size {settings.size}: H.264 needs an even number of pixels")
    if settings.seed < 0:
        raise StvideoError(f"--seed {settings.seed}: expected 0 or more")


def _check_same_settings(path: Path, settings: Settings) -> None:
    """More clips per class and other classes may be added to a folder; other pictures may not."""
    wanted = json.loads(json.dumps(asdict(settings)))
    if path.exists():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = {}
        for key in ("size", "frames", "fps", "seed", "version"):
            if found.get(key) != wanted[key]:
                raise StvideoError(
                    f"{path.parent} holds clips made with {key}={found.get(key)}, not {wanted[key]}: "
                    "name another folder, or delete this one"
                )
    path.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python data_tools/motion.py",
        description=summary,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("output", type=Path, help="folder to write to")
    parser.add_argument(
        "--classes", nargs="+", choices=MOTIONS, default=MOTIONS, metavar="MOTION", help=", ".join(MOTIONS)
    )
    parser.add_argument("--train-per-class", type=int, default=800, help="training clips per class (%(default)s)")
    parser.add_argument("--test-per-class", type=int, default=100, help="validation clips per class (%(default)s)")
    parser.add_argument("--size", type=int, default=64, help="pixels of the square frames (%(default)s)")
    parser.add_argument("--frames", type=int, default=16, help="frames per clip (%(default)s)")
    parser.add_argument("--fps", type=int, default=15, help="frames per second (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="other clips of the same kind (%(default)s)")
    parser.add_argument("--workers", type=int, default=0, help="processes; 0: one per CPU core")
    given = vars(parser.parse_args(argv))
    output, workers = given.pop("output"), given.pop("workers")
    given["classes"] = tuple(given["classes"])
    settings = Settings(**given)
    written = write_motion(output, settings, workers)
    total = len(settings.classes) * (settings.train_per_class + settings.test_per_class)
    print(f"{output}: {total} clips of {len(settings.classes)} motions ({written} written now); data.root={output}")
    return 0


if __name__ == "__main__":
    cli.run(main)
