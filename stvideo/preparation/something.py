"""Join the official files of Something-Something V2 with the videos that are there; see data_tools/ssv2.py."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from stvideo.core.errors import StvideoError
from stvideo.data.lists.joining import Join, OnDisk
from stvideo.data.lists.something import LABEL_FILES, find_labels, ssv2_entries, without_brackets
from stvideo.data.lists.text_files import read_lines

_LONG_NAME = "something-something-v2-"
_SPLITS = {"train": ("train.json",), "val": ("validation.json", "val.json"), "test": ("test.json",)}


def official_files(folder: Path) -> tuple[Path, dict[str, Path]]:
    """Find the class list and the file of every split in ``folder``; raises `StvideoError`."""
    if not folder.is_dir():
        raise StvideoError(f"{folder}: expected the folder that holds {LABEL_FILES[0]}, train.json")
    labels = find_labels(folder)
    if labels is None:
        raise StvideoError(f"{folder}: no {LABEL_FILES[0]} in it (nor {LABEL_FILES[1]})")
    files = {split: path for split, names in _SPLITS.items() if (path := _find(folder, *names)) is not None}
    if not files:
        raise StvideoError(f"{folder}: none of train.json, validation.json and test.json is in it")
    return labels, files


def join_splits(files: dict[str, Path], on_disk: OnDisk, classes: Sequence[str]) -> dict[str, Join]:
    """Join every split with the disk; videos of the test split may lack labels. Raises `StvideoError`."""
    splits: dict[str, Join] = {}
    for split, path in files.items():
        is_test = split == "test"
        answers = _find(path.parent, "test-answers.csv") if is_test else None
        splits[split] = Join(on_disk)
        for entry in ssv2_entries(path, classes, read_answers(answers) if answers else None, unlabeled=is_test):
            splits[split].add(entry)
    return splits


def read_answers(path: Path) -> dict[str, str]:
    """Read test-answers.csv, ``id;label`` a line (a comma or tab will do), as labels by identifier."""
    answers: dict[str, str] = {}
    for number, line in enumerate(read_lines(path), 1):
        match = re.match(r'\s*"?(\w+)"?\s*[;,\t]\s*(.+?)\s*$', line)
        if match:
            answers[match[1]] = without_brackets(match[2].strip('"'))
        elif line.strip():
            raise StvideoError(f"{path}:{number}: expected: id;label")
    return answers


def _find(folder: Path, *names: str) -> Path | None:
    """Find the file of one of these names, or of one of their long forms; None if there is none."""
    candidates = (folder / f"{prefix}{name}" for name in names for prefix in ("", _LONG_NAME))
    return next((path for path in candidates if path.is_file()), None)
