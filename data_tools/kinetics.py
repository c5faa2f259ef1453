"""Kinetics-400, -600 or -700: official annotations and the videos that are there -> lists that training reads.

    python data_tools/kinetics.py annotations/train.csv annotations/val.csv root=/data/k400
    python data_tools/kinetics.py annotations/ root=/data/k400 output=lists/

Annotations are the official CSV files (label,youtube_id,time_start,time_end,split, in any order and with or without the
last ones) or the JSON files of the same releases, or a folder that holds train.csv, val.csv or validate.csv, and
test.csv; of train.csv and train.json in one folder the CSV is read. A split without labels is listed in
test.unlabeled.txt, by path alone.

A clip is found by its name, ID_START_END (000012 or 12 for second 12) or the bare ID, as .mp4, .mkv, .webm, .avi or
another video format, in whatever folders: all in one (the unpacked archives of CVDF, whose replacement folder goes
first), one folder per class with spaces or underscores, videos_train and videos_val. Hidden files, "._" companions,
unfinished downloads and empty files are passed over.

Files of the bare ID count as the clip itself. If they are the whole videos instead, untrimmed=true writes start and end
in seconds into the lists, and training reads only that part.

    root=FOLDER        holds the videos, at any depth
    output=FOLDER      where the lists go (default: the root)
    overwrite=true     replace lists that say something else
    classes=FILE       class names in the order to number them by (default: alphabetical)
    untrimmed=true     files of the bare ID are whole videos

Writes OUTPUT/train.txt, val.txt, test.txt (path, class number and perhaps start and end, separated by tabs),
OUTPUT/classes.txt (alphabetical, as published checkpoints have them), and beside each list a report, val.report.json:
official size, found, missing (per class, too), share, SHA-256 of the list. Evaluation says by it how much of the
official split it has seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stvideo.core.errors import StvideoError
from stvideo.data.lists.listfiles import read_classes
from stvideo.preparation.kinetics import annotation_files, join_splits, warn_of_lengths
from stvideo.preparation.split_lists import ListSettings, scan_root, write_splits
from stvideo.settings import cli
from stvideo.settings.cli import read_command_line


@dataclass
class KineticsSettings(ListSettings):
    """What can be given as ``key=value``."""

    classes: str = ""
    untrimmed: bool = False


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    given, settings, strays = read_command_line(KineticsSettings, argv, __doc__)
    if not given or "" in given or strays:
        named = f"{strays[0]} is not" if strays else "name"
        raise StvideoError(f"{named} a file of official annotations, or a folder of them; --help tells more")
    files = annotation_files(Path(name).expanduser() for name in given)
    classes = read_classes(Path(settings.classes).expanduser()) if settings.classes else None
    on_disk = scan_root(settings.root)
    splits = join_splits(files, on_disk, classes, settings.untrimmed)
    warn_of_lengths(splits, on_disk.root, settings.untrimmed)
    labels = {label for join in splits.values() for label in join.classes if label is not None}
    write_splits(splits, classes or sorted(labels), on_disk, settings)
    return 0


if __name__ == "__main__":
    cli.run(main)
