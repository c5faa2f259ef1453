"""UCF101, HMDB51 or a folder of your own with one folder per class -> lists that training reads.

    python data_tools/splits.py ucfTrainTestlist/ root=/data/UCF-101             classInd.txt, trainlist01.txt ...
    python data_tools/splits.py testTrainMulti_7030_splits/ root=/data/hmdb51    brush_hair_test_split1.txt ...
    python data_tools/splits.py root=/data/mine                                  train/CLASS/x.mp4, val/CLASS/y.mp4
    python data_tools/splits.py root=/data/mine val_share=0.2                    CLASS/x.mp4, a fifth for validation

Official splits give train_split1.txt and val_split1.txt, and so on for every split that the folder describes; UCF101
numbers its classes as classInd.txt does, everything else alphabetically. Videos are found by name, in whatever folders
and video format. val_share divides each class by the names of its files: the same files fall on the same side again
when others join them.

    root=FOLDER        holds the videos, at any depth
    output=FOLDER      where the lists go (default: the root)
    overwrite=true     replace lists that say something else
    val_share=SHARE    for class folders: share to validate on; 0 lists all of them for training

Writes the lists (path and class number, separated by a tab), OUTPUT/classes.txt, and beside each list a report,
val.report.json: official size, found, missing (per class, too), share, SHA-256 of the list.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stvideo.core.errors import StvideoError
from stvideo.data.lists.kinetics import split_of_name
from stvideo.data.lists.listfiles import read_lines
from stvideo.data.lists.joining import Entry, Join, OnDisk, known_label
from stvideo.preparation.split_lists import ListSettings, scan_root, write_splits
from stvideo.settings import cli
from stvideo.settings.command_settings import read_command_line

_HMDB_FILE = re.compile(r"(.+)_test_split(\d+)\.txt$")
_HMDB_SIDES = {"1": "train", "2": "val", "0": ""}


@dataclass
class Settings(ListSettings):
    """What can be given as ``key=value``."""

    val_share: float | None = None


def read_ucf_classes(path: Path) -> list[str]:
    """classInd.txt: ``1 ApplyEyeMakeup`` a line, numbered from 1."""
    names: list[str] = []
    for number, line in enumerate(read_lines(path), 1):
        fields = line.split()
        if fields and (len(fields) != 2 or fields[0] != str(len(names) + 1)):
            raise StvideoError(f"{path}:{number}: expected '{len(names) + 1} ClassName', not {line.strip()!r}")
        names += fields[1:]
    if not names:
        raise StvideoError(f"{path}: no class names in it")
    return names


def ucf_splits(folder: Path, classes: list[str]) -> Iterator[tuple[str, Entry]]:
    """(split, entry) of every line ``Class/v_Class_g01_c01.avi [number]`` in trainlist01.txt, testlist01.txt ..."""
    numbers = {name: number for number, name in enumerate(classes)}
    for path in sorted(folder.glob("*list[0-9][0-9].txt")):
        side = "train" if path.name.startswith("train") else "val"
        for line_number, line in enumerate(read_lines(path), 1):
            name = line.split()[0] if line.strip() else ""
            if not name:
                continue
            label, _, file = name.rpartition("/")
            where = f"{path}:{line_number}"
            if not label:
                raise StvideoError(f"{where}: expected Class/video.avi, not {line.strip()!r}")
            label = known_label(label, numbers, where)
            given = line.split()[1:]
            if given and given != [str(numbers[label] + 1)]:
                raise StvideoError(
                    f"{where}: {name} is said to be class {given[0]}, but {label} is {numbers[label] + 1}"
                )
            stem = file.rsplit(".", 1)[0]
            yield f"{side}_split{int(path.stem[-2:])}", Entry(line_number, label, f"{label}/{stem}", (stem,), (label,))


def hmdb_splits(folder: Path) -> Iterator[tuple[str, Entry]]:
    """(split, entry) of every line ``video.avi 1`` (training) or ``2`` (test) in brush_hair_test_split1.txt ..."""
    for path in sorted(folder.glob("*_test_split*.txt")):
        match = _HMDB_FILE.match(path.name)
        if match is None:
            continue
        label = match[1]
        for line_number, line in enumerate(read_lines(path), 1):
            name, _, side = line.strip().rpartition(" ")
            if not line.strip():
                continue
            if side not in _HMDB_SIDES or not name.strip():
                raise StvideoError(f"{path}:{line_number}: expected 'video.avi 1' (or 2, or 0), not {line.strip()!r}")
            if _HMDB_SIDES[side]:
                stem = name.strip().rsplit(".", 1)[0]
                entry = Entry(line_number, label, f"{label}/{stem}", (stem,), (label,))
                yield f"{_HMDB_SIDES[side]}_split{int(match[2])}", entry


def folder_splits(on_disk: OnDisk, val_share: float | None) -> dict[str, Join]:
    """Videos in folders of their class, below folders of their split or divided by ``val_share``."""
    splits: dict[str, Join] = {}
    # By path: files of one name in two folders are two videos here, not copies.
    on_disk.files = {path: path for path in on_disk.paths()}
    tops = {path.split("/")[0] if path.count("/") > 1 else "" for path in on_disk.paths()}
    if val_share is not None and tops and all(split_of_name(top) for top in tops):
        raise StvideoError(
            f"root={on_disk.root}: is divided into {', '.join(sorted(tops))} already; leave out val_share"
        )
    for path in on_disk.paths():
        folders = path.split("/")[:-1]
        split = split_of_name(folders[0]) if folders else ""
        if split and val_share is None:
            folders = folders[1:]
        elif val_share is None:
            raise StvideoError(
                f"{on_disk.root / path}: lies in no train or val folder; val_share=0.2 divides class folders, "
                "val_share=0 lists all of them for training"
            )
        else:
            drawn = int.from_bytes(hashlib.sha256(path.encode()).digest()[:8], "big") / 2**64
            split = "val" if drawn < val_share else "train"
        if not folders:
            raise StvideoError(f"{on_disk.root / path}: lies in no folder of a class")
        on_disk.named.add(path)
        splits.setdefault(split, Join(on_disk)).take(path, folders[0])
    return dict(sorted(splits.items()))


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    given, settings, strays = read_command_line(Settings, argv, __doc__)
    if len(given) > 1 or strays:
        raise StvideoError(f"one folder of split files is expected, or none, not {given + strays}; --help tells more")
    folder, share = Path(given[0]).expanduser() if given else None, settings.val_share
    if share is not None and (folder is not None or not 0 <= share < 1):
        raise StvideoError(f"val_share={share:g}: a share from 0 to below 1, for class folders without split files")
    if folder is None:
        on_disk = scan_root(settings.root)
        splits = folder_splits(on_disk, share)
        classes = sorted({str(label) for join in splits.values() for label in join.classes})
    else:
        splits, classes, on_disk = official_splits(folder, settings.root)
    write_splits(splits, classes, on_disk, settings)
    return 0


def official_splits(folder: Path, root: str) -> tuple[dict[str, Join], list[str], OnDisk]:
    """What ``folder`` describes, UCF101 or HMDB51, joined with the disk."""
    if not folder.is_dir():
        raise StvideoError(f"{folder}: no such folder of split files")
    if (folder / "classInd.txt").is_file():
        classes = read_ucf_classes(folder / "classInd.txt")
        entries = ucf_splits(folder, classes)
    else:
        classes = sorted({match[1] for path in folder.iterdir() if (match := _HMDB_FILE.match(path.name))})
        entries = hmdb_splits(folder)
    on_disk = scan_root(root)
    splits: dict[str, Join] = {}
    for split, entry in entries:
        splits.setdefault(split, Join(on_disk)).add(entry)
    if not splits:
        raise StvideoError(
            f"{folder}: neither UCF101's files (classInd.txt, trainlist01.txt) nor HMDB51's (NAME_test_split1.txt)"
        )
    return splits, classes, on_disk


if __name__ == "__main__":
    cli.run(main)
