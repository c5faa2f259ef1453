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

from pathlib import Path

from stvideo.core.errors import StvideoError
from stvideo.data.lists.listfiles import read_classes
from stvideo.preparation.something import join_splits, official_files
from stvideo.preparation.split_lists import ListSettings, scan_root, write_splits
from stvideo.settings import cli
from stvideo.settings.cli import read_command_line


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    given, settings, strays = read_command_line(ListSettings, argv, __doc__)
    if len(given) != 1 or "" in given or strays:
        raise StvideoError(f"one folder of annotations is expected, not {given + strays}; --help tells more")
    labels, files = official_files(Path(given[0]).expanduser())
    classes = read_classes(labels)
    on_disk = scan_root(settings.root)
    write_splits(join_splits(files, on_disk, classes), classes, on_disk, settings)
    return 0


if __name__ == "__main__":
    cli.run(main)
