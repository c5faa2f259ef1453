"""Join UCF101, HMDB51 or folders of classes with the videos that are there; see data_tools/splits.py."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from stvideo.core.errors import StvideoError
from stvideo.data.lists.joining import Annotation, OnDisk, known_label
from stvideo.data.lists.kinetics import split_of_name
from stvideo.data.lists.text_files import read_lines

_HMDB_FILE = re.compile(r"(.+)_test_split(\d+)\.txt$")
_HMDB_SIDES = {"1": "train", "2": "val", "0": ""}


def official_splits(folder: Path) -> tuple[list[str], Iterator[tuple[str, Annotation]]]:
    """Read class names and (split, video) of what ``folder`` describes, UCF101 or HMDB51; raises `StvideoError`."""
    if not folder.is_dir():
        raise StvideoError(f"{folder}: no such folder of split files")
    if (folder / "classInd.txt").is_file():
        classes = read_ucf_classes(folder / "classInd.txt")
        return classes, ucf_splits(folder, classes)
    classes = sorted({match[1] for path in folder.iterdir() if (match := _HMDB_FILE.match(path.name))})
    if not classes:
        raise StvideoError(
            f"{folder}: neither UCF101's files (classInd.txt, trainlist01.txt) nor HMDB51's (NAME_test_split1.txt)"
        )
    return classes, hmdb_splits(folder)


def read_ucf_classes(path: Path) -> list[str]:
    """Read classInd.txt: ``1 ApplyEyeMakeup`` a line, numbered from 1."""
    names: list[str] = []
    for number, line in enumerate(read_lines(path), 1):
        fields = line.split()
        if fields and (len(fields) != 2 or fields[0] != str(len(names) + 1)):
            raise StvideoError(f"{path}:{number}: expected '{len(names) + 1} ClassName', not {line.strip()[:80]!r}")
        names += fields[1:]
    if not names:
        raise StvideoError(f"{path}: no class names in it")
    return names


def ucf_splits(folder: Path, classes: list[str]) -> Iterator[tuple[str, Annotation]]:
    """Read (split, video) of lines ``Class/v_Class_g01_c01.avi [number]`` in trainlist01.txt, testlist01.txt ..."""
    numbers = {name: number for number, name in enumerate(classes)}
    for path in sorted(folder.glob("*list[0-9][0-9].txt")):
        side = "train" if path.name.startswith("train") else "val"
        for line_number, line in enumerate(read_lines(path), 1):
            fields = line.split()
            if not fields:
                continue
            where = f"{path}:{line_number}"
            label, _, file = fields[0].rpartition("/")
            if not label:
                raise StvideoError(f"{where}: expected Class/video.avi, not {line.strip()[:80]!r}")
            label = known_label(label, numbers, where)
            if fields[1:] not in ([], [str(numbers[label] + 1)]):
                raise StvideoError(
                    f"{where}: {fields[0]} is said to be class {fields[1]}, but {label} is {numbers[label] + 1}"
                )
            yield f"{side}_split{int(path.stem[-2:])}", _by_name(line_number, label, file)


def hmdb_splits(folder: Path) -> Iterator[tuple[str, Annotation]]:
    """Read (split, video) of lines ``video.avi 1`` (training) or ``2`` (test) in brush_hair_test_split1.txt ..."""
    for path in sorted(folder.glob("*_test_split*.txt")):
        match = _HMDB_FILE.match(path.name)
        if match is None:
            continue
        for line_number, line in enumerate(read_lines(path), 1):
            name, _, side = line.strip().rpartition(" ")
            if not line.strip():
                continue
            if side not in _HMDB_SIDES or not name.strip():
                raise StvideoError(
                    f"{path}:{line_number}: expected 'video.avi 1' (or 2, or 0), not {line.strip()[:80]!r}"
                )
            if _HMDB_SIDES[side]:
                yield f"{_HMDB_SIDES[side]}_split{int(match[2])}", _by_name(line_number, match[1], name.strip())


def _by_name(line: int, label: str, file: str) -> Annotation:
    """Find a video by its name, best in the folder of its class."""
    stem = file.rsplit(".", 1)[0]
    return Annotation(line, label, f"{label}/{stem}", (stem,), (label,))


def folder_splits(on_disk: OnDisk, val_share: float | None) -> Iterator[tuple[str, Annotation]]:
    """Find (split, video) in folders of classes, below folders of their split or divided by ``val_share``.

    Raises:
        StvideoError: a video lies in no folder of a split or class, or ``val_share`` would divide split folders.
    """
    on_disk.keep_apart()
    tops = {path.split("/")[0] if path.count("/") > 1 else "" for path in on_disk.paths()}
    if val_share is not None and tops and all(split_of_name(top) for top in tops):
        raise StvideoError(
            f"root={on_disk.root}: is divided into {', '.join(sorted(tops))} already; leave out val_share"
        )
    for path in list(on_disk.paths()):
        folders = path.split("/")[:-1]
        split = split_of_name(folders[0]) if folders else ""
        if val_share is not None:
            drawn = int.from_bytes(hashlib.sha256(path.encode()).digest()[:8], "big") / 2**64
            split = "val" if drawn < val_share else "train"
        elif split:
            folders = folders[1:]
        else:
            raise StvideoError(
                f"{on_disk.root / path}: lies in no train or val folder; val_share=0.2 divides class folders, "
                "val_share=0 lists all of them for training"
            )
        if not folders:
            raise StvideoError(f"{on_disk.root / path}: lies in no folder of a class")
        yield split, Annotation(0, folders[0], path, (path,))
