"""Something-Something V2: official JSON files and the videos that are there -> lists that training reads.

    python data_tools/ssv2.py labels/ root=/data/ssv2
    python data_tools/ssv2.py labels/ root=/data/ssv2/20bn-something-something-v2 output=lists/

The folder holds labels.json, train.json, validation.json and perhaps test.json with test-answers.csv, each also under
its long name (something-something-v2-train.json). Videos stay where they are, ID.webm in any folder. Labels are the
templates without their brackets, numbered as labels.json says. A test split without answers is listed in
test.unlabeled.txt, by path alone.

    root=FOLDER        holds the videos, at any depth
    output=FOLDER      where the lists go (default: the root)
    overwrite=true     replace lists that say something else

Writes OUTPUT/train.txt, val.txt, test.txt (path and class number, separated by a tab), OUTPUT/classes.txt, and beside
each list a report, val.report.json: official size, found, missing (per class, too), share, SHA-256 of the list.
"""

from __future__ import annotations

import re
from pathlib import Path

from stvideo.core.errors import StvideoError
from stvideo.data.lists.listfiles import read_classes, read_lines
from stvideo.data.lists.something import LABEL_FILES, find_labels, ssv2_entries, without_brackets
from stvideo.data.lists.joining import Join
from stvideo.preparation.split_lists import ListSettings, scan_root, write_splits
from stvideo.settings import cli
from stvideo.settings.command_settings import read_command_line

_LONG_NAME = "something-something-v2-"
_SPLITS = {"train": ("train.json",), "val": ("validation.json", "val.json"), "test": ("test.json",)}


def find_file(folder: Path, *names: str) -> Path | None:
    """The file of one of these names, or of one of their long forms; None if there is none."""
    candidates = (folder / f"{prefix}{name}" for name in names for prefix in ("", _LONG_NAME))
    return next((path for path in candidates if path.is_file()), None)


def read_answers(path: Path) -> dict[str, str]:
    """test-answers.csv: ``id;label`` a line (a comma or tab will do) -> labels by identifier."""
    answers: dict[str, str] = {}
    for number, line in enumerate(read_lines(path), 1):
        match = re.match(r'\s*"?(\w+)"?\s*[;,\t]\s*(.+?)\s*$', line)
        if match:
            answers[match[1]] = without_brackets(match[2].strip('"'))
        elif line.strip():
            raise StvideoError(f"{path}:{number}: expected: id;label")
    return answers


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    given, settings, strays = read_command_line(ListSettings, argv, __doc__)
    if len(given) != 1 or strays:
        raise StvideoError(f"one folder of annotations is expected, not {given + strays}; --help tells more")
    folder = Path(given[0]).expanduser()
    if not folder.is_dir():
        raise StvideoError(f"{folder}: expected the folder that holds {', '.join([LABEL_FILES[0], 'train.json'])}")
    labels = find_labels(folder)
    if labels is None:
        raise StvideoError(f"{folder}: no {LABEL_FILES[0]} in it (nor {LABEL_FILES[1]})")
    files = {split: path for split, names in _SPLITS.items() if (path := find_file(folder, *names)) is not None}
    if not files:
        raise StvideoError(f"{folder}: none of train.json, validation.json and test.json is in it")
    classes = read_classes(labels)
    answer_file = find_file(folder, "test-answers.csv")
    answers = read_answers(answer_file) if answer_file else None
    on_disk = scan_root(settings.root)
    splits: dict[str, Join] = {}
    for split, path in files.items():
        join = splits[split] = Join(on_disk)
        is_test = split == "test"
        for entry in ssv2_entries(path, classes, answers if is_test else None, unlabeled=is_test):
            join.add(entry)
    write_splits(splits, classes, on_disk, settings)
    return 0


if __name__ == "__main__":
    cli.run(main)
