"""Read the manifest: what data_tools/verify.py found out about every video, and how a data set uses it.

A CSV file with one line per video (`VideoRow` names the columns), by default ``manifest.csv`` in the data root. A
dataset leaves out the videos it calls unusable, reads those that decord gets wrong with PyAV, and takes no frame from
behind the last one that can be decoded.
"""

from __future__ import annotations

import csv
from array import array
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from stvideo.core.errors import StvideoError
from stvideo.core.messages import EVERY_PROCESS, logger
from stvideo.data.lists.annotations import find_file
from stvideo.data.lists.index import VideoIndex, without

FILE_NAME = "manifest.csv"
STATUSES = {
    "ok": "every frame decodes, and random access returns the right ones",
    "exact": "every frame decodes, but decord errs: read by PyAV",
    "sequential": "every frame decodes, but seeking errs: read by counting from the start",
    "partial": "damaged further on: only the frames before that are used",
    "unusable": "left out",
}

Row = TypeVar("Row", bound="CsvRow")


@dataclass(frozen=True)
class CsvRow:
    """A line of a CSV file as a dataclass of texts, integers and floats, the first of which names it."""

    def row(self) -> list[Any]:
        """Write the fields of the line, floats to the sixth decimal."""
        return [round(value, 6) if isinstance(value, float) else value for value in vars(self).values()]

    @classmethod
    def from_row(cls: type[Row], row: list[str]) -> Row:
        """Reverse `row`; raises ValueError."""
        kinds = {"str": str, "int": int, "float": float}
        return cls(*(kinds[str(field.type)](text) for field, text in zip(fields(cls), row, strict=True)))

    @classmethod
    def columns(cls) -> list[str]:
        return [field.name for field in fields(cls)]


@dataclass(frozen=True)
class VideoRow(CsvRow):
    """What is known of one video. The columns that a dataset reads come first.

    Attributes:
        path: relative to the data root.
        status: one of `STATUSES`.
        frames: from the start on, really decoded one after another; ``listed``: counted by the container's packets.
        bytes, modified: size of the file and time of its last change (nanoseconds); zeros if it is missing.
        decoder: what ``data.decoder=auto`` reads it with, if usable.
        reason: why it is not ok.
        duration: seconds. ``width``, ``height``: pixels as displayed, after ``rotation`` (degrees counter-clockwise).
        key_gap_median, key_gap_max: frames from one key frame to the next.
        decord: its random access against decoding in order: same | different | fails | hangs | crashes, absent where
            decord is not installed, empty where there was nothing to compare.
    """

    path: str
    status: str
    frames: int = 0
    bytes: int = 0
    decoder: str = ""
    reason: str = ""
    listed: int = 0
    fps: float = 0.0
    width: int = 0
    height: int = 0
    duration: float = 0.0
    codec: str = ""
    container: str = ""
    rotation: int = 0
    keyframes: int = 0
    key_gap_median: int = 0
    key_gap_max: int = 0
    decord: str = ""
    modified: int = 0


class Checked:
    """Hold what a manifest says about the videos of an index in memory that the loader's workers share.

    Attributes:
        left_out: how many videos of the list are not in the index because they are unusable.
        about: int64 (3, videos): frames, bytes, and which decoders are not to be used, see `_EXACT`; 0 if unknown.
    """

    def __init__(self, source: Path, left_out: int, about: np.ndarray) -> None:
        self.source, self.left_out = source, left_out
        self.about = torch.from_numpy(np.ascontiguousarray(about)).share_memory_()
        self._warned = torch.zeros(1, dtype=torch.uint8).share_memory_()

    def shapes(self) -> list[tuple[int, int]]:
        """List (bytes, frames) of every video, zeros where nothing is known of it."""
        return list(zip(self.about[1].tolist(), self.about[0].tolist(), strict=True))

    def reading(self, video: int, path: Path, decoder: str) -> tuple[str, int | None]:
        """Say how to read video number ``video``: (decoder, frames that can be decoded, None if that is not known).

        Files may be copied, which changes their times; one of another size is another file, for which nothing is known.
        """
        frames, size, exact = self.about[:, video].tolist()
        if not frames:
            return decoder, None
        if not _is_of(path, size):
            if not self._warned[0]:
                self._warned[0] = 1
                logger.warning(_stale(self.source, f"{path} is", "the file is"), extra=EVERY_PROCESS)
            return decoder, None
        if exact == _EXACT["sequential"]:
            return "sequential", frames
        return ("pyav" if exact > (decoder == "torchcodec") else decoder), frames


def use_manifest(index: VideoIndex, root: Path, given: str | None) -> tuple[VideoIndex, Checked | None]:
    """Leave out the videos that the manifest calls unusable, and return what it says about the others.

    Args:
        index: the videos of a split.
        root: the data root.
        given: path of the manifest, from here or from ``root``; None takes ``root/manifest.csv`` if it is there.

    What a person should know is added to the notes of the index.

    Raises:
        StvideoError: the manifest is missing or malformed, is about other videos, or calls all of them unusable.
    """
    if given is None and not (root / FILE_NAME).is_file():
        return index, None
    path = root / FILE_NAME if given is None else find_file(given, root, "manifest")
    table = _read(path)
    wanted = index.path_hashes()
    about = table[:, np.searchsorted(table[0], wanted).clip(0, table.shape[1] - 1)]  # the line of every video
    found, unusable, _, sizes, _ = about
    known = found == wanted
    if not known.any():
        raise StvideoError(
            f"{path}: it names none of the {len(index):,} videos, e.g. {index.path(0)}: run data_tools/verify.py on "
            "this list and root, or name another file with data.manifest"
        )
    notes = list(index.notes)
    if not known.all():
        notes.append(
            f"{path} does not know {np.count_nonzero(~known):,} of {len(index):,} videos, "
            f"e.g. {index.path(int(np.argmin(known)))}: run data_tools/verify.py on this list"
        )
    bad = np.flatnonzero(known & (unusable > 0))
    changed = np.array([not _is_of(root / index.path(video), sizes[video]) for video in bad.tolist()], dtype=bool)
    if changed.any():
        notes.append(_stale(path, f"{int(changed.sum()):,} videos that it calls unusable are", "they are"))
    left_out = bad[~changed]
    if len(left_out) == len(index):
        raise StvideoError(f"{path}: it calls all {len(index):,} videos unusable; its column 'reason' says why")
    keep = np.ones(len(index), dtype=bool)
    keep[left_out] = False
    chosen = index
    if len(left_out):
        chosen = index.select(np.flatnonzero(keep))
        notes.append(
            f"left out {len(left_out):,} of {len(index):,} videos that {path} calls unusable, "
            f"e.g. {index.path(int(left_out[0]))}"
        )
        notes += without(sorted(set(chosen.empty_classes()) - set(index.empty_classes())), "usable video left")
    chosen.notes = notes
    usable = known & (unusable == 0)
    return chosen, Checked(path, len(left_out), np.where(usable, about[2:], 0)[:, keep])


# 1: not by decord; 2: by PyAV alone, for torchcodec too goes by what the file says of its length; 3: without seeking.
_EXACT = {"exact": 1, "partial": 2, "sequential": 3}


def _read(path: Path) -> np.ndarray:
    """Read the columns hash of the path, unusable, frames, bytes, exact: int64 (5, lines), sorted by hash.

    A name is only known by its hash, in this process: 8 bytes instead of a hundred. The last line about a path counts.
    """
    values = array("q")
    if not path.is_file():
        raise StvideoError(f"{path}: a file is expected as manifest")
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            rows = csv.reader(line for line in file if line.endswith("\n"))  # verify.py may be writing the last one
            if next(rows, None) != VideoRow.columns():
                raise StvideoError(f"{path}: not a manifest of data_tools/verify.py (its first line is another)")
            for name, status, frames, size, *_ in rows:
                key = hash(name.encode("utf-8", "surrogateescape"))
                values.extend((key, status == "unusable", int(frames), int(size), _EXACT.get(status, 0)))
    except OSError as error:
        raise StvideoError(f"{path}: cannot be read ({error.strerror})") from None
    except StvideoError:
        raise
    except (ValueError, OverflowError, csv.Error):
        line = rows.line_num
        raise StvideoError(f"{path}:{line}: not a line of a manifest; run data_tools/verify.py again") from None
    if not values:
        raise StvideoError(f"{path}: it knows no video; run data_tools/verify.py")
    table = np.frombuffer(values, dtype=np.int64).reshape(-1, 5)
    order = np.argsort(table[:, 0], kind="stable")
    return table[order[np.append(np.diff(table[order, 0]) != 0, True)]].T


def _is_of(path: Path, size: int) -> bool:
    """Whether a file is as large as it was, as far as it can be asked."""
    try:
        return path.stat().st_size == size
    except OSError:
        return True


def _stale(source: Path, what: str, then: str) -> str:
    return f"{what} not as when {source} was written; {then} read as if unknown: run data_tools/verify.py again"
