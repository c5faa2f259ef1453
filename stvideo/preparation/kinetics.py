"""Join the official annotations of Kinetics with the videos that are there; see data_tools/kinetics.py."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from stvideo.core.errors import StvideoError
from stvideo.core.messages import logger
from stvideo.data.lists.joining import Join, OnDisk
from stvideo.data.lists.kinetics import is_kinetics, kinetics_entries
from stvideo.data.video.packets import UnreadableVideo, open_container

_FILES_TRIED = 9  # of those with bare names, to see whether they are clips or whole videos
_LONGER = 3.0  # seconds by which a clip may be longer than annotated


def annotation_files(given: Iterable[Path]) -> list[Path]:
    """List the files among ``given`` and in the folders among them; of two forms of the same annotations the CSV."""
    files: list[Path] = []
    for path in given:
        if path.is_dir():
            inside = (file for file in sorted(path.iterdir()) if file.is_file() and not file.name.startswith("."))
            found = [file for file in inside if is_kinetics(file)]
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
    """Join every split that the files hold with the disk; raises `StvideoError`."""
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
    """Warn if files with bare names are not what ``untrimmed`` takes them for."""
    found = [source for join in splits.values() for source in join.sources()]
    long: list[bool] = []
    example = ""
    for path, (start, end) in found[:: max(1, len(found) // _FILES_TRIED)][:_FILES_TRIED]:
        try:
            container, stream = open_container(root / path)
        except UnreadableVideo:
            continue
        with container:
            seconds = (container.duration or 0) / 1e6 or float((stream.duration or 0) * (stream.time_base or 0))
        if seconds:
            long.append(seconds > end - start + _LONGER)
            if long[-1] != untrimmed:
                example = f"{path} lasts {seconds:.0f} s, its clip {end - start:g} s"
    if not untrimmed and 2 * sum(long) > len(long):
        what, advice = "whole videos", "list their clips with untrimmed=true"
    elif untrimmed and 2 * sum(long) < len(long):
        what, advice = "clips already", "leave untrimmed=true out"
    else:
        return
    logger.warning(f"files named by bare ids seem to be {what} ({example}): {advice}")
