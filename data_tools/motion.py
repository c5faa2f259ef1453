"""Write a small data set of H.264 clips whose class is a motion, for demos and tests of video models.

A textured object moves over a cluttered background: left, right, up, down, toward the camera, away from it, or turning
clockwise or counter-clockwise. One frame does not give the class away: a "left" clip played backwards is a "right"
clip, and in every class the object appears at the same places, sizes and angles. Training and validation clips have
textures and backgrounds of their own.

    python data_tools/motion.py /tmp/motion                                 800 + 100 clips per class
    python data_tools/motion.py /tmp/motion classes=left,right train_per_class=50 test_per_class=20

    classes=NAME,...         some of left, right, up, down, toward, away, clockwise, counter-clockwise (default: all)
    train_per_class=800      training clips per class
    test_per_class=100       validation clips per class
    size=64                  pixels of the square frames
    frames=16                frames per clip
    fps=15                   frames per second
    seed=0                   other clips of the same kind
    workers=N                processes (default: one per CPU core)
    overwrite=true           write all anew, over whatever is in the folder

Writes, like Kinetics in class folders,

    OUTPUT/train/left/000000.mp4 ...   OUTPUT/val/left/000000.mp4 ...
    OUTPUT/train.txt  OUTPUT/val.txt   lines "path label"
    OUTPUT/classes.txt                 class names in the order of the labels

which training reads with data.root=OUTPUT. A second run with the same settings finishes what is missing and leaves the
rest alone. The same settings and seed write the same clips, whatever the number of processes.
"""

from __future__ import annotations

from pathlib import Path

from stvideo.core.errors import StvideoError
from stvideo.preparation.motion import MotionSettings, write_motion
from stvideo.settings import cli
from stvideo.settings.cli import read_command_line


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    given, settings, strays = read_command_line(MotionSettings, argv, __doc__)
    if len(given) != 1 or not given[0] or strays:
        raise StvideoError(f"one folder to write to is expected, not {given + strays}; --help tells more")
    output = Path(given[0]).expanduser()
    written = write_motion(output, settings)
    total = len(settings.classes) * (settings.train_per_class + settings.test_per_class)
    print(f"{output}: {total} clips of {len(settings.classes)} motions ({written} written now); data.root={output}")
    return 0


if __name__ == "__main__":
    cli.run(main)
