"""Find the videos below a folder, in one pass over its folders."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from stvideo.core.errors import StvideoError
from stvideo.data.video.formats import VIDEO_SUFFIXES

_PARTIAL_SUFFIXES = (".part", ".ytdl", ".tmp", ".temp", ".crdownload", ".aria2", ".partial", ".download")
_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip")


class LeftOut:
    """Count files that were passed over while looking for videos, by reason, with the first one as an example."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.examples: dict[str, str] = {}

    def add(self, reason: str, name: str) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + 1
        self.examples.setdefault(reason, name)


def video_files(
    root: Path, suffixes: Sequence[str] = VIDEO_SUFFIXES, left_out: LeftOut | None = None, sizes: bool = False
) -> Iterator[str]:
    """Find all video files below ``root``: paths relative to it, in sorted order of folders and names.

    What downloads and copies leave behind (``._name`` and other hidden files, ``name.part``, ``name.temp.mp4``, a file
    beside its ``.aria2``) is passed over, and so are folders that are called like a video. With ``sizes`` empty files
    are too, which asks the file system about every file.

    Args:
        left_out: counts everything that was passed over although it looks like a video.

    Raises:
        StvideoError: a folder cannot be listed.
    """
    left_out = left_out if left_out is not None else LeftOut()
    endings = tuple(suffixes)
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(root / folder) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            raise StvideoError(f"{root / folder}: cannot be listed ({error.strerror})") from None
        downloads = {entry.name[: -len(".aria2")] for entry in entries if entry.name.endswith(".aria2")}
        below = []
        for entry in entries:
            lower = entry.name.lower()
            name = f"{folder}/{entry.name}" if folder else entry.name
            reason = _passed_over(lower, endings, entry.name in downloads)
            if entry.is_dir():
                if lower.endswith(endings) and lower[0] != ".":
                    left_out.add("folder called like a video", name)
                elif lower[0] != "." and not (entry.is_symlink() and _leads_upwards(root, folder, entry.path)):
                    below.append(name)
            elif reason:
                left_out.add(reason, name)
            elif lower.endswith(endings):
                if sizes and _is_empty(entry):
                    left_out.add("empty file", name)
                else:
                    yield name
        folders.extend(reversed(below))


def _passed_over(name: str, endings: tuple[str, ...], unfinished: bool) -> str | None:
    """Why a file is left out that looks like a video, or like what becomes one."""
    if name.startswith("."):
        return "hidden file" if name.endswith(endings) else None
    stem = name.rsplit(".", 1)[0]
    if unfinished or name.endswith(_PARTIAL_SUFFIXES) or (name.endswith(endings) and stem.endswith(_PARTIAL_SUFFIXES)):
        return "partial download"
    return "archive" if name.endswith(_ARCHIVES) else None


def _is_empty(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.stat().st_size == 0
    except OSError:  # a dangling link
        return True


def _leads_upwards(root: Path, folder: str, link: str) -> bool:
    """Tell whether a linked folder is one that we are in, or holds one: following it would never end."""
    target = os.path.realpath(link)
    inside = [root, *(root / above for above in (Path(folder), *Path(folder).parents))]
    return any(f"{os.path.realpath(above)}/".startswith(target.rstrip("/") + "/") for above in inside)
