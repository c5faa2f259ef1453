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

from dataclasses import dataclass
from pathlib import Path

from stvideo.core.errors import StvideoError
from stvideo.data.lists.joining import Join
from stvideo.preparation.class_splits import folder_splits, official_splits
from stvideo.preparation.split_lists import ListSettings, scan_root, write_splits
from stvideo.settings import cli
from stvideo.settings.cli import read_command_line


@dataclass
class SplitSettings(ListSettings):
    """What can be given as ``key=value``."""

    val_share: float | None = None


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    given, settings, strays = read_command_line(SplitSettings, argv, __doc__)
    if len(given) > 1 or "" in given or strays:
        raise StvideoError(f"one folder of split files is expected, or none, not {given + strays}; --help tells more")
    share = settings.val_share
    if share is not None and (given or not 0 <= share < 1):
        raise StvideoError(f"val_share={share:g}: a share from 0 to below 1, for class folders without split files")
    classes, entries = official_splits(Path(given[0]).expanduser()) if given else ([], iter(()))
    on_disk = scan_root(settings.root)
    splits: dict[str, Join] = {}
    for split, entry in entries if given else folder_splits(on_disk, share):
        splits.setdefault(split, Join(on_disk)).add(entry)
    classes = classes or sorted({str(label) for join in splits.values() for label in join.classes})
    write_splits(splits, classes, on_disk, settings)
    return 0


if __name__ == "__main__":
    cli.run(main)
