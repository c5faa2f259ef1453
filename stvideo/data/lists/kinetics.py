"""Read official Kinetics annotations (400, 600, 700): CSV (``label,youtube_id,time_start,time_end,split``) or JSON.

Columns, their order and their names differ a little between releases; some test splits come without labels. The JSON
files say the same: ``{youtube_id: {"annotations": {"label": ..., "segment": [start, end]}, "subset": "train", ...}}``.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from stvideo.core.errors import StvideoError
from stvideo.data.lists.index import VideoIndex
from stvideo.data.lists.joining import Annotation, Join, OnDisk, known_label
from stvideo.data.lists.text_files import SHOWN, read_json, read_lines, read_start

T = TypeVar("T")
# Line, or position in a JSON file; identifier, start, end, label, split: as the file says them, "" where it does not.
_Row = tuple[int, str, Any, Any, str, str]

_COLUMNS = {
    "label": ("label", "class", "class_label", "label_name", "action"),
    "youtube_id": ("youtube_id", "youtube_identifier", "video_id", "ytid", "id"),
    "time_start": ("time_start", "start_time", "start", "start_seconds"),
    "time_end": ("time_end", "end_time", "end", "end_seconds"),
    "split": ("split", "subset"),
}
_NEEDED = ("youtube_id", "time_start", "time_end")
# An object of objects that soon speaks of segments; Something-Something's files are a list, and an object of numbers.
_JSON_OPENING = re.compile(r'\s*\{\s*"[^"]*"\s*:\s*\{[^\[]*"segment"')
_YOUTUBE_ID = re.compile(r"[\w-]{11}$")
_SPLITS = {"train": "train", "training": "train", "test": "test", "val": "val", "validate": "val", "validation": "val"}


def is_kinetics(path: Path) -> bool:
    """Tell whether the file opens as the official Kinetics annotations do, CSV (with its heading) or JSON."""
    if path.suffix.lower() == ".json":
        return _JSON_OPENING.match(read_start(path)) is not None
    return path.suffix.lower() == ".csv" and set(_NEEDED) <= _columns(next(read_lines(path), "")).keys()


def kinetics_entries(path: Path, classes: Sequence[str] | None = None) -> Iterator[tuple[str, Annotation]]:
    """Read (split, annotation) of every row.

    The split is train, val, test, or whatever else the file calls it; where the rows do not say, it is what the name of
    the file says, or empty. A clip lies under the name ``{id}_{start:06d}_{end:06d}`` or ``{id}``, in any folder.

    Args:
        classes: class names that labels must be among; None takes any label.

    Raises:
        StvideoError: a row is malformed or its label unknown; says file and line.
    """
    numbers = {name: number for number, name in enumerate(classes or [])}
    of_file = split_of_name(path.stem)
    spelling: dict[str, str] = {}  # one string per class, however many rows
    for line, video, first, last, text, said in (_json_rows if path.suffix.lower() == ".json" else _csv_rows)(path):
        try:
            start, end = float(first), float(last)
            trimmed = f"{video}_{int(start):06d}_{int(end):06d}"
        except (TypeError, ValueError, OverflowError):
            raise StvideoError(f"{_place(path, line)}: time_start and time_end are seconds") from None
        if not video:
            raise StvideoError(f"{_place(path, line)}: the youtube_id is empty")
        if not 0 <= start < end:
            raise StvideoError(f"{_place(path, line)}: a video cannot be cut from {start:g} s to {end:g} s")
        label = spelling.get(text)
        if text and label is None:
            label = spelling[text] = text if classes is None else known_label(text, numbers, _place(path, line))
        split = _SPLITS.get(said.lower(), said.lower()) or of_file
        stems = (trimmed, f"{video}_{int(start)}_{int(end)}", video)
        # CVDF's archives carry clips that replace broken ones in a folder of their own.
        folders = ("replacement", "replacement_for_corrupted_k400", split, text, text.replace(" ", "_"))
        yield split, Annotation(line, label, trimmed, stems, folders, (start, end))


def read_kinetics(path: Path, root: Path, classes: Sequence[str] | None = None, split: str | None = None) -> VideoIndex:
    """Join an official Kinetics CSV or JSON file with the videos below ``root``; see `kinetics_entries`.

    Rows without a video are left out and counted in the notes. Every file counts as a whole: for untrimmed downloads
    ``data_tools/kinetics.py untrimmed=true`` writes lists. Of several splits in one file ``split`` is taken, None: all.
    """
    on_disk = OnDisk.scan(root)
    joins: dict[str, Join] = {}
    for name, entry in kinetics_entries(path, classes):
        if entry.label is None:
            raise StvideoError(f"{_place(path, entry.line)}: no label (the test split has none)")
        joins.setdefault(name if split else "", Join(on_disk)).add(entry)
    join = _of_split(joins, split, path)
    return join.index(classes if classes is not None else sorted(map(str, join.classes)), path)


def kinetics_classes(path: Path, split: str | None = None) -> list[str]:
    """List the labels of official annotations in alphabetical order; of ``split`` if it holds several."""
    labels: dict[str, set[str]] = {}
    for name, entry in kinetics_entries(path):
        if entry.label is not None:
            labels.setdefault(name if split else "", set()).add(entry.label)
    chosen: set[str] = _of_split(labels, split, path)
    return sorted(chosen)


def split_of_name(name: str) -> str:
    """train, val or test, whichever a file called ``name`` says it is; else empty."""
    words = re.findall(r"[a-z]+", name.lower())
    return next((_SPLITS[word] for word in words if word in _SPLITS), "")


def _csv_rows(path: Path) -> Iterator[_Row]:
    lines = read_lines(path)
    first = next(lines, "")
    heading = next(csv.reader([first]), [])
    columns, rows, skipped = _columns(first), lines, 1
    if len(heading) >= 4 and _YOUTUBE_ID.match(heading[1]) and heading[2].isdigit() and heading[3].isdigit():
        # No heading but a clip.
        columns, rows, skipped = {name: place for place, name in enumerate(_COLUMNS)}, chain([first], lines), 0
    for column in _NEEDED:
        if column not in columns:
            raise StvideoError(f"{path}:1: no column {column!r} in it; it has {', '.join(heading)[:SHOWN] or 'none'}")
    id_at, start_at, end_at = (columns[name] for name in _NEEDED)
    label_at, split_at = columns.get("label", -1), columns.get("split", -1)
    reader = csv.reader(rows)
    for row in reader:
        if not "".join(row).strip():  # a blank line, or one of separators only, as spreadsheets leave them
            continue
        line = reader.line_num + skipped
        if len(row) != len(heading):
            raise StvideoError(f"{path}:{line}: {len(heading)} columns are expected as in the first line")
        label = row[label_at].strip() if label_at >= 0 else ""
        split = row[split_at].strip() if 0 <= split_at < len(row) else ""
        yield line, row[id_at].strip(), row[start_at], row[end_at], label, split


def _json_rows(path: Path) -> Iterator[_Row]:
    videos = read_json(path)
    if not isinstance(videos, dict):
        raise StvideoError(f"{path}: expected a JSON object of youtube_id -> annotations")
    for position, (video, about) in enumerate(videos.items()):
        try:
            annotations, split = about["annotations"], about.get("subset") or ""
            (start, end), label = annotations["segment"], annotations.get("label") or ""
        except (TypeError, KeyError, ValueError, AttributeError):
            raise StvideoError(
                f"{_place(path, position)} ({video[:SHOWN]}): expected 'annotations' with 'label' and 'segment': "
                "[start, end]"
            ) from None
        yield position, video.strip(), start, end, str(label).strip(), str(split).strip()


def _place(path: Path, line: int) -> str:
    """Name an annotation in messages: by its line, in JSON files by its number from 0."""
    return f"{path}: entry {line}" if path.suffix.lower() == ".json" else f"{path}:{line}"


def _of_split(splits: dict[str, T], split: str | None, path: Path) -> T:
    """Select the rows of ``split``; in a file of one split all of them."""
    found = next(iter(splits.values())) if len(splits) == 1 else splits.get(split or "")
    if found is None:
        raise StvideoError(f"{path}: no videos in it" + (f" for split {split!r}" if split else ""))
    return found


def _columns(heading: str) -> dict[str, int]:
    """Locate the columns by one of their known names."""
    fields = next(csv.reader([heading]), [])
    names = [re.sub(r"[\s-]+", "_", name.strip(" \r\n#").lower()) for name in fields]
    found = {column: [names.index(name) for name in known if name in names] for column, known in _COLUMNS.items()}
    return {column: places[0] for column, places in found.items() if places}
