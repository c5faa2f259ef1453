"""Decode every video once and write down what it really holds, so that training meets no surprises.

    python data_tools/verify.py /data/k400                                 every video below a folder
    python data_tools/verify.py train.txt val.txt root=/data/k400          the videos that list files name
    python data_tools/verify.py configs/k400_stvit.yaml data.root=/data/k400
                                                                           the videos that a configuration names
    python data_tools/verify.py train.csv validate.csv root=/data/k400     official Kinetics and Something-Something
                                                                           annotations (.csv, .json) work as well

For each file: how many frames can really be decoded, rate, size, duration, codec, rotation, key frame spacing, and
whether decord's random access returns the very frames that decoding from start to end gives. Files are worked on in
processes of their own, so one that hangs or crashes the decoder costs nothing but an entry.

    root=FOLDER        what paths in lists are relative to (default: the folder that holds the list)
    output=FILE        the manifest (default: manifest.csv in the root, where training finds it by itself)
    workers=N          processes (default: one per CPU core)
    timeout=60         seconds that a file may go without a new frame before it counts as hanging
    retry=true         look again at files that an earlier run found unusable or that decord hung on

The manifest is a CSV file with one line per video; it grows while this runs. The same command goes on where an earlier
one stopped, however that happened, and looks again at files that have changed since (by size and time). Status:

    ok         every frame decodes, and random access returns the right ones
    exact      every frame decodes, but decord returns wrong ones, hangs or fails: training reads it with PyAV
    partial    damaged further on: at least half of its frames decode from the start on, and only those are used
    unusable   training leaves it out and says so; evaluation counts it as missing

Exit status: 0 all files are usable, 1 some are not, 2 a mistake (told in one line), 130 interrupted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stvideo.data.lists.manifest import FILE_NAME
from stvideo.preparation.jobs import check_timeout
from stvideo.preparation.listing import list_videos
from stvideo.preparation.verification import report, verify
from stvideo.settings import cli
from stvideo.settings.cli import read_command_line


@dataclass
class VerifySettings:
    """What can be given as ``key=value``."""

    root: str = ""
    output: str = ""
    workers: int = 0
    timeout: float = 60.0
    retry: bool = False


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    sources, settings, overrides = read_command_line(VerifySettings, argv, __doc__)
    check_timeout(settings.timeout)
    listing = list_videos(sources, settings.root, overrides)
    output = Path(settings.output).expanduser() if settings.output else listing.root / FILE_NAME
    rows = verify(listing.root, listing.paths, output, settings.workers, settings.timeout, settings.retry)
    print(report(rows, output))
    return 1 if any(row.status == "unusable" for row in rows) else 0


if __name__ == "__main__":
    cli.run(main)
