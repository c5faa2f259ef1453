"""Make every video small and quick to read from anywhere. The originals are not touched.

    python data_tools/resize.py /data/k400 output=/data/k400_320                       every video below a folder
    python data_tools/resize.py train.txt val.txt root=/data/ssv2 output=/data/small   the videos that lists name
    python data_tools/resize.py configs/k400_stvit.yaml data.root=/data/k400 output=/data/small short_side=256

Writes OUTPUT/any/where/NAME.mp4 for every any/where/NAME.webm (.mp4, .avi, ...) below the root: H.264 without sound, in
the original frame rate with the original time stamps (a varying rate stays one), turned as it is to be shown, even
sizes, never larger than it was. Lists named on the command line or by the configuration are written to OUTPUT with the
new names; official .csv and .json annotations and class names are copied. So data.root=OUTPUT is all that changes.

    root=FOLDER        what paths in lists are relative to (default: the folder that holds the list)
    output=FOLDER      where the small videos go; must not overlap with the root
    short_side=320     pixels of the shorter side; 256 is common too. Smaller videos keep their size
    keyframes=8        frames from one key frame to the next
    crf=22             x264's constant rate factor: 18 looks like the original, 28 is half the size
    workers=N          processes (default: one per CPU core)
    timeout=60         seconds that a file may go without a new frame before it counts as hanging
    retry=true         try files again that failed in an earlier run

Why key frames so close: reading 8 frames spread over a video means to decode, for each, everything since the key frame
before it: 4 or 5 frames on average at keyframes=8, over 100 at the 250 that encoders choose by themselves. On 340x256
clips keyframes=16 is about a tenth smaller and takes a third longer to read, keyframes=4 is the other way round. For
the same reason there are no B-frames, and groups of pictures are closed: then every decoder returns the right frames.

A file appears under its name only when it is whole. OUTPUT/resized.csv says what was done; the same command goes on
where an earlier one stopped, encodes anew what has changed since or was asked for with other settings, and skips the
rest. A damaged video of which at least half decodes is kept up to the damage; of the others nothing is written. They
stay in the lists: run data_tools/verify.py on those, so that training leaves them out and evaluation counts them.

Exit status: 0 all videos are done, 1 some failed, 2 a mistake (told in one line), 130 interrupted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stvideo.core.errors import StvideoError
from stvideo.preparation.jobs import check_timeout
from stvideo.preparation.listing import list_videos, write_annotations
from stvideo.preparation.resizing import keep_apart, report, resize, target_names
from stvideo.preparation.transcode import Recipe
from stvideo.settings import cli
from stvideo.settings.cli import read_command_line


@dataclass
class ResizeSettings:
    """What can be given as ``key=value``."""

    root: str = ""
    output: str = ""
    short_side: int = 320
    keyframes: int = 8
    crf: float = 22.0
    workers: int = 0
    timeout: float = 60.0
    retry: bool = False


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    sources, settings, overrides = read_command_line(ResizeSettings, argv, __doc__)
    if not settings.output:
        raise StvideoError("output=FOLDER is missing: where the small videos go; --help tells more")
    check_timeout(settings.timeout)
    recipe = Recipe(settings.short_side, settings.keyframes, settings.crf).checked()
    listing = list_videos(sources, settings.root, overrides)
    output = Path(settings.output).expanduser()
    keep_apart(listing.root, output)
    targets = target_names(listing.paths)
    write_annotations(listing, output, targets)
    rows = resize(listing.root, targets, output, recipe, settings.workers, settings.timeout, settings.retry)
    print(report(rows, output))
    return 1 if any(row.status == "failed" for row in rows) else 0


if __name__ == "__main__":
    cli.run(main)
