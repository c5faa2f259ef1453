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

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stvideo.core.errors import StvideoError
from stvideo.core.messages import logger
from stvideo.data.lists.kinetics import is_kinetics, kinetics_entries
from stvideo.data.lists.listfiles import read_classes
from stvideo.data.video.packets import UnreadableVideo, open_container
from stvideo.data.lists.joining import Join, OnDisk
from stvideo.preparation.split_lists import ListSettings, scan_root, write_splits
from stvideo.settings import cli
from stvideo.settings.command_settings import read_command_line

_FILES_TRIED = 9  # of those with bare names, to see whether they are clips or whole videos
_LONGER = 3.0  # seconds by which a clip may be longer than annotated


@dataclass
class Settings(ListSettings):
    """What can be given as ``key=value``."""

    classes: str = ""
    untrimmed: bool = False


def annotation_files(given: Sequence[Path]) -> list[Path]:
    """The files among ``given`` and in the folders among them; of two forms of the same annotations the CSV."""
    files: list[Path] = []
    for path in given:
        if path.is_dir():
            found = sorted(file for file in path.iterdir() if not file.name.startswith(".") and is_kinetics(file))
            if not found:
                raise StvideoError(
                    f"{path}: no Kinetics CSV in this folder (label,youtube_id,time_start,time_end,split), and no JSON"
                )
            files += [file for file in found if file.suffix.lower() == ".csv" or file.with_suffix(".csv") not in found]
        else:
            files.append(path)
    return files


def join_splits(
    files: Sequence[Path], on_disk: OnDisk, classes: Sequence[str] | None, untrimmed: bool
) -> dict[str, Join]:
    """Every split that the files hold, joined with the disk; raises `StvideoError`."""
    splits: dict[str, Join] = {}
    origin: dict[str, Path] = {}
    for file in files:
        for split, entry in kinetics_entries(file, classes):
            name = split or file.stem
            if origin.setdefault(name, file) != file:
                raise StvideoError(f"{file}: split {name!r} is in {origin[name]} too; name only files of one release")
            splits.setdefault(name, Join(on_disk, untrimmed)).add(entry)
        if file not in origin.values():
            raise StvideoError(f"{file}: no videos in it")
    return splits


def warn_of_lengths(splits: dict[str, Join], root: Path, untrimmed: bool) -> None:
    """Say so if files with bare names are not what ``untrimmed`` takes them for."""
    found = [source for join in splits.values() for source in join.sources()]
    tried = long = 0
    example = ""
    for path, (start, end) in found[:: max(1, len(found) // _FILES_TRIED)][:_FILES_TRIED]:
        try:
            container, stream = open_container(root / path)
        except UnreadableVideo:
            continue
        with container:
            seconds = (container.duration or 0) / 1e6 or float((stream.duration or 0) * (stream.time_base or 0))
        if seconds:
            is_long = seconds > end - start + _LONGER
            tried, long = tried + 1, long + is_long
            if is_long != untrimmed:
                example = f"{path} lasts {seconds:.0f} s, its clip {end - start:g} s"
    if tried and not untrimmed and 2 * long > tried:
        logger.warning(
            f"files named by bare ids seem to be whole videos ({example}): list their clips with untrimmed=true"
        )
    elif tried and untrimmed and 2 * long < tried:
        logger.warning(f"files named by bare ids seem to be clips already ({example}): leave untrimmed=true out")


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    given, settings, strays = read_command_line(Settings, argv, __doc__)
    if not given or strays:
        named = f"{strays[0]} is not" if strays else "name"
        raise StvideoError(f"{named} a file of official annotations, or a folder of them; --help tells more")
    files = annotation_files([Path(name).expanduser() for name in given])
    classes = read_classes(Path(settings.classes).expanduser()) if settings.classes else None
    on_disk = scan_root(settings.root)
    splits = join_splits(files, on_disk, classes, settings.untrimmed)
    warn_of_lengths(splits, on_disk.root, settings.untrimmed)
    labels = {label for join in splits.values() for label in join.classes if label is not None}
    write_splits(splits, classes or sorted(labels), on_disk, settings)
    return 0


if __name__ == "__main__":
    cli.run(main)
