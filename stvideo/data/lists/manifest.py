"""The manifest: what data_tools/verify.py found out about every video, and how a data set uses it.

A CSV file with one line per video (`Entry` names the columns), by default ``manifest.csv`` in the data root. A dataset
leaves out the videos it calls unusable, reads those that decord gets wrong with PyAV, and takes no frame from behind
the last one that can be decoded.
"""

from __future__ import annotations

import csv
from array import array
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stvideo.core.errors import StvideoError
from stvideo.core.messages import EVERY_PROCESS, logger
from stvideo.data.lists.index import VideoIndex

FILE_NAME = "manifest.csv"
STATUSES = {
    "ok": "every frame decodes, and random access returns the right ones",
    "exact": "every frame decodes, but decord errs: read by PyAV",
    "partial": "damaged further on: only the frames before that are used",
    "unusable": "left out",
}


@dataclass(frozen=True)
class Entry:
    """One line. The columns that a dataset reads come first.

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

    def row(self) -> list[Any]:
        """The fields of its line, seconds and rates to the microsecond."""
        return [round(value, 6) if isinstance(value, float) else value for value in astuple(self)]

    @classmethod
    def from_row(cls, row: list[str]) -> Entry:
        """The reverse of `row`; raises ValueError."""
        values = (_TYPES[str(field.type)](text) for field, text in zip(fields(cls), row, strict=True))
        return cls(*values)


_TYPES: dict[str, Any] = {"str": str, "int": int, "float": float}
COLUMNS = tuple(field.name for field in fields(Entry))
_HEADER = ",".join(COLUMNS)


class Checked:
    """What a manifest says about the videos of an index: small arrays, shared by the loader's workers.

    ``left_out``: how many videos of the list are not in the index because they are unusable.
    """

    def __init__(self, source: Path, left_out: int, frames: np.ndarray, size: np.ndarray, exact: np.ndarray) -> None:
        self.source, self.left_out = source, left_out
        self._frames, self._size, self._exact = (
            torch.from_numpy(values).share_memory_() for values in (frames, size, exact)
        )
        self._warned = torch.zeros(1, dtype=torch.uint8).share_memory_()

    def reading(self, video: int, path: Path, decoder: str) -> tuple[str, int | None]:
        """How to read video number ``video``: (decoder, frames that can be decoded, None if that is not known).

        Files may be copied, which changes their times; one of another size is another file, for which nothing is known.
        """
        frames = int(self._frames[video])
        if not frames:
            return decoder, None
        try:
            same = path.stat().st_size == int(self._size[video])
        except OSError:
            return decoder, None  # opening it says why
        if not same:
            if not self._warned[0]:
                self._warned[0] = 1
                logger.warning(_stale(self.source, f"{path} is", "the file is"), extra=EVERY_PROCESS)
            return decoder, None
        exact = int(self._exact[video])
        return ("pyav" if exact > (decoder == "torchcodec") else decoder), frames


def use_manifest(index: VideoIndex, root: Path, given: str | None) -> tuple[VideoIndex, Checked | None]:
    """``index`` without the videos that the manifest calls unusable, and what it says about the others.

    Args:
        index: the videos of a split.
        root: the data root.
        given: path of the manifest, from here or from ``root``; None takes ``root/manifest.csv`` if it is there.

    What a person should know is added to the notes of the index.

    Raises:
        StvideoError: the manifest is missing or malformed, is about other videos, or calls all of them unusable.
    """
    path = _find(root, given)
    if path is None:
        return index, None
    hashes, unusable, frames, size, exact = _read(path)
    rows = _match(index, hashes)
    known = rows >= 0
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
    bad = np.flatnonzero(known & unusable[rows])
    changed = np.array([_changed(root / index.path(int(video)), int(size[rows[video]])) for video in bad], dtype=bool)
    if changed.any():
        notes.append(_stale(path, f"{int(changed.sum()):,} videos that it calls unusable are", "they are"))
    left_out = bad[~changed]
    if len(left_out) == len(index):
        raise StvideoError(f"{path}: it calls all {len(index):,} videos unusable; its column 'reason' says why")
    keep = np.ones(len(index), dtype=bool)
    keep[left_out] = False
    chosen = index.select(np.flatnonzero(keep)) if len(left_out) else index
    if len(left_out):
        notes.append(
            f"left out {len(left_out):,} of {len(index):,} videos that {path} calls unusable, "
            f"e.g. {index.path(int(left_out[0]))}"
        )
        lost = sorted(set(chosen.empty_classes()) - set(index.empty_classes()))
        if lost:
            more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
            notes.append(f"class {', '.join(map(repr, lost[:3]))}{more}: no usable video is left")
    chosen.notes = notes
    rows = rows[keep]
    known = (rows >= 0) & ~unusable[rows]
    about_chosen = (np.where(known, values[rows], 0) for values in (frames, size, exact))
    return chosen, Checked(path, len(left_out), *about_chosen)


def _find(root: Path, given: str | None) -> Path | None:
    if given is None:
        beside = root / FILE_NAME
        return beside if beside.is_file() else None
    for path in (Path(given).expanduser(), root / given):
        if path.is_file():
            return path
    raise StvideoError(
        f"data.manifest={given}: no such file, neither here nor in {root}; data_tools/verify.py makes it"
    )


def _read(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Columns (hash of the path, unusable, frames, bytes, exact), sorted by hash; the last line about a path counts.

    A name is only known by its hash, in this process: 8 bytes instead of a hundred.
    """
    hashes, frames, size = array("q"), array("i"), array("q")
    unusable, exact = bytearray(), bytearray()
    number = 1
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            if file.readline().strip() != _HEADER:
                raise StvideoError(f"{path}: not a manifest of data_tools/verify.py (its first line is another)")
            for number, line in enumerate(file, 2):  # noqa: B007
                if not line.endswith("\n"):
                    break  # verify.py was cut off while writing it
                row = line.split(",", 5) if not line.startswith('"') else next(csv.reader([line]))
                name, status = row[0], row[1]
                frames.append(int(row[2]))
                size.append(int(row[3]))
                hashes.append(hash(name.encode("utf-8", "surrogateescape")))
                unusable.append(status == "unusable")
                # 1: not by decord; 2: by PyAV alone, for torchcodec too goes by what the file says of its length.
                exact.append({"exact": 1, "partial": 2}.get(status, 0))
    except OSError as error:
        raise StvideoError(f"{path}: cannot be read ({error.strerror})") from None
    except StvideoError:
        raise
    except (ValueError, IndexError, OverflowError, csv.Error):
        raise StvideoError(f"{path}:{number}: not a line of a manifest; run data_tools/verify.py again") from None
    if not hashes:
        raise StvideoError(f"{path}: it knows no video; run data_tools/verify.py")
    keys = np.frombuffer(hashes, dtype=np.int64)
    order = np.argsort(keys, kind="stable")
    order = order[np.append(np.diff(keys[order]) != 0, True)]
    columns = (
        keys,
        np.frombuffer(unusable, dtype=bool),
        np.frombuffer(frames, dtype=np.int32),
        np.frombuffer(size, dtype=np.int64),
        np.frombuffer(exact, dtype=np.uint8),
    )
    return tuple(column[order] for column in columns)  # type: ignore[return-value]


def _match(index: VideoIndex, hashes: np.ndarray) -> np.ndarray:
    """For every video its place among the sorted ``hashes``, -1 where it is not there."""
    wanted = index.path_hashes()
    places = np.searchsorted(hashes, wanted).clip(0, len(hashes) - 1)
    return np.where(hashes[places] == wanted, places, -1)


def _changed(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size != size
    except OSError:
        return False


def _stale(source: Path, what: str, then: str) -> str:
    return f"{what} not as when {source} was written; {then} read as if unknown: run data_tools/verify.py again"
