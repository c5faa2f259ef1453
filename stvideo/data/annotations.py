"""Whatever a person has -> `VideoIndex`: list file, Kinetics CSV, Something-Something JSON, folder of class folders."""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from stvideo.data.images import IMAGE_SUFFIXES
from stvideo.data.index import VideoIndex
from stvideo.data.listfiles import read_classes, read_list, read_text
from stvideo.errors import StvideoError, nearest

VIDEO_SUFFIXES = (".mp4", ".webm", ".mkv", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".3gp")


def read_annotations(
    source: Path, root: Path, classes: Sequence[str] | None = None, split: str | None = None
) -> VideoIndex:
    """Read ``source``, telling by itself what it is.

    Args:
        source: a list file, an official Kinetics CSV, a Something-Something JSON, or a folder of class folders.
        root: folder that the videos are in and that relative paths start from.
        classes: class names; None takes them from the annotations (for lists from a classes.txt beside the list).
        split: for Kinetics CSVs that hold several splits: keep only rows of this one.

    Raises:
        StvideoError: the source is missing, malformed or empty; the message names file and line.
    """
    if source.is_dir():
        return read_folders(source, root, classes)
    if not source.exists():
        raise StvideoError(f"{source}: no such list file or folder")
    if source.suffix.lower() == ".json":
        return read_ssv2(source, root, classes)
    if is_kinetics_csv(source):
        return read_kinetics(source, root, classes, split)
    beside = source.parent / "classes.txt"
    if classes is None and beside.is_file():
        classes = read_classes(beside)
    return read_list(source, root, classes)


def video_files(root: Path, suffixes: Sequence[str] = VIDEO_SUFFIXES) -> Iterator[str]:
    """Paths of all video files below ``root``, relative to it, in sorted order of folders and names.

    Files that downloads and copies leave behind (``._name``, ``name.part``, hidden and empty files) are not counted.
    """
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            entries = sorted(os.scandir(root / folder), key=lambda entry: entry.name)
        except OSError as error:
            raise StvideoError(f"{root / folder}: cannot be listed ({error.strerror})") from None
        below = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            name = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir():
                below.append(name)
            elif entry.name.lower().endswith(tuple(suffixes)):
                yield name
        folders.extend(reversed(below))


def read_folders(folder: Path, root: Path, classes: Sequence[str] | None = None) -> VideoIndex:
    """A folder of class folders: ``folder/arm wrestling/any/where/x.mp4``. Folder names are the class names.

    Where there is no video but there are images (ImageNet's layout), every image is a clip of one frame.
    """
    try:
        prefix = folder.absolute().relative_to(root.absolute()).as_posix()
    except ValueError:
        raise StvideoError(f"{folder}: this folder of classes lies outside the data root {root}") from None
    prefix = "" if prefix == "." else f"{prefix}/"
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise StvideoError(f"{folder}: no class folders in it; expected one folder per class, videos inside")
    known = list(classes) if classes is not None else names
    numbers = _numbers(known)
    label_of: dict[str, int] = {}
    for name in names:
        label = numbers.get(name, numbers.get(name.replace("_", " ")))
        if label is None:
            raise StvideoError(f"{folder / name}: this folder is no class of the list{nearest(name, numbers)}")
        label_of[name] = label
    for suffixes in (VIDEO_SUFFIXES, IMAGE_SUFFIXES):
        files = {name: list(video_files(folder / name, suffixes)) for name in names}
        if any(files.values()):
            break
    else:
        raise StvideoError(f"{folder}: no videos in its class folders (looked for {' '.join(VIDEO_SUFFIXES)})")
    paths = [f"{prefix}{name}/{file}" for name in names for file in files[name]]
    labels = [label_of[name] for name in names for _ in files[name]]
    notes = [f"class {name!r} has no video" for name in names if not files[name]]
    return VideoIndex.build(paths, labels, known, notes=notes)


def is_kinetics_csv(path: Path) -> bool:
    """Whether the file opens with the heading of the official Kinetics annotations."""
    if path.suffix.lower() != ".csv":
        return False
    heading = read_text(path).split("\n", 1)[0].lower()
    return "youtube_id" in heading


def read_kinetics(path: Path, root: Path, classes: Sequence[str] | None = None, split: str | None = None) -> VideoIndex:
    """Official Kinetics CSV (label,youtube_id,time_start,time_end,split) joined with the videos below ``root``.

    A video is found under the name ``{id}_{start:06d}_{end:06d}`` or ``{id}``, in any folder; one in a folder of its
    class or split is preferred. Rows without a video are left out and counted in the notes.
    """
    rows = _kinetics_rows(path, split)
    known = list(classes) if classes is not None else sorted({row["label"] for _, row in rows})
    numbers = _numbers(known)
    on_disk: dict[str, list[str]] = {}
    for name in video_files(root):
        on_disk.setdefault(name.rsplit("/", 1)[-1].rsplit(".", 1)[0], []).append(name)
    paths: list[str] = []
    labels: list[int] = []
    missing: Counter[str] = Counter()
    for line, row in rows:
        label = numbers.get(row["label"])
        if label is None:
            hint = nearest(row["label"], numbers)
            raise StvideoError(f"{path}:{line}: label {row['label']!r} is not in the class list{hint}")
        try:
            start, end = int(float(row["time_start"])), int(float(row["time_end"]))
        except ValueError:
            raise StvideoError(f"{path}:{line}: time_start and time_end are seconds") from None
        trimmed = f"{row['youtube_id']}_{start:06d}_{end:06d}"
        found = on_disk.get(trimmed) or on_disk.get(row["youtube_id"])
        if not found:
            missing[row["label"]] += 1
            continue
        paths.append(_preferred(found, row))
        labels.append(label)
    if not paths:
        raise StvideoError(f"{path}: none of its {len(rows)} videos is below the data root {root}")
    notes = []
    if missing:
        share = sum(missing.values()) / len(rows)
        worst = ", ".join(f"{name} {count}" for name, count in missing.most_common(3))
        notes.append(f"{sum(missing.values())} of {len(rows)} videos ({share:.1%}) are not on disk (most: {worst})")
    return VideoIndex.build(paths, labels, known, notes=notes)


def _kinetics_rows(path: Path, split: str | None) -> list[tuple[int, dict[str, str]]]:
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    headings = [name.strip().lower() for name in reader.fieldnames or []]
    reader.fieldnames = headings
    for column in ("label", "youtube_id", "time_start", "time_end"):
        if column not in headings:
            hint = " (the test split has no labels)" if column == "label" else ""
            raise StvideoError(f"{path}:1: no column {column!r} in it{hint}; it has {', '.join(headings)}")
    rows: list[tuple[int, dict[str, str]]] = []
    for row in reader:
        if None in row or any(value is None for value in row.values()):
            raise StvideoError(f"{path}:{reader.line_num}: {len(headings)} columns are expected as in the first line")
        rows.append((reader.line_num, {key: value.strip() for key, value in row.items()}))
    splits = {row.get("split", "") for _, row in rows}
    if split is not None and len(splits) > 1:
        wanted = {"val": ("val", "validate", "validation")}.get(split, (split,))
        rows = [(line, row) for line, row in rows if row.get("split") in wanted]
    if not rows:
        raise StvideoError(f"{path}: no videos in it" + (f" for split {split!r}" if split else ""))
    return rows


def _preferred(found: list[str], row: dict[str, str]) -> str:
    """Of several files with the right name: one in a folder of the row's split or class."""
    if len(found) == 1:
        return found[0]
    label = row["label"]
    wanted = {label, label.replace(" ", "_"), row.get("split", "")}
    return max(found, key=lambda name: len(wanted & set(name.split("/")[:-1])))


def read_ssv2_labels(path: Path) -> list[str]:
    """Something-Something's labels.json: {"template": "number", ...} -> templates in the order of their numbers."""
    content = _json(path)
    if not isinstance(content, dict) or not content:
        raise StvideoError(f"{path}: expected a JSON object of class name -> number")
    try:
        numbered = {int(number): name for name, number in content.items()}
    except (TypeError, ValueError):
        raise StvideoError(f"{path}: class numbers are expected as values") from None
    if sorted(numbered) != list(range(len(content))):
        raise StvideoError(f"{path}: class numbers are not 0 .. {len(content) - 1}, each once")
    return [numbered[number] for number in range(len(content))]


def read_ssv2(path: Path, root: Path, classes: Sequence[str] | None = None) -> VideoIndex:
    """Something-Something's train.json or validation.json: [{"id": "74225", "template": "Putting [one of ...] ..."}].

    Videos are ``root/ID.webm`` (or in one folder below, in another video format). Brackets in templates are stripped,
    as labels.json writes them. ``classes`` None reads the labels.json beside ``path``.
    """
    entries = _json(path)
    if not isinstance(entries, list) or not entries:
        raise StvideoError(f"{path}: expected a JSON list of videos")
    if classes is None:
        beside = [path.parent / name for name in ("labels.json", "something-something-v2-labels.json")]
        found = next((name for name in beside if name.is_file()), None)
        if found is None:
            raise StvideoError(f"{path}: no labels.json beside it; name it with data.classes")
        classes = read_ssv2_labels(found)
    numbers = _numbers(classes)
    on_disk = {name.rsplit("/", 1)[-1].rsplit(".", 1)[0]: name for name in video_files(root)}
    paths: list[str] = []
    labels: list[int] = []
    missing = 0
    for position, entry in enumerate(entries):
        where = f"{path}: entry {position}"
        if not isinstance(entry, dict) or "id" not in entry:
            raise StvideoError(f"{where}: expected an object with 'id' and 'template'")
        if "template" not in entry:
            raise StvideoError(f"{where}: video {entry['id']} has no template (the test split has no labels)")
        template = str(entry["template"]).replace("[", "").replace("]", "")
        if template not in numbers:
            raise StvideoError(f"{where}: label {template!r} is not in the class list{nearest(template, numbers)}")
        name = on_disk.get(str(entry["id"]))
        if name is None:
            missing += 1
            continue
        paths.append(name)
        labels.append(numbers[template])
    if not paths:
        raise StvideoError(f"{path}: none of its {len(entries)} videos is below the data root {root}")
    notes = [f"{missing} of {len(entries)} videos ({missing / len(entries):.1%}) are not on disk"] if missing else []
    return VideoIndex.build(paths, labels, list(classes), notes=notes)


def _numbers(classes: Sequence[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(classes)}


def _json(path: Path) -> Any:
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise StvideoError(f"{path}:{error.lineno}: not valid JSON ({error.msg})") from None
