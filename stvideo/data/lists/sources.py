"""What ``data.train``, ``data.val`` and ``data.classes`` mean: a configuration -> the videos of a split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stvideo.core.errors import StvideoError
from stvideo.data.lists.annotations import class_folders, read_annotations
from stvideo.data.lists.index import VideoIndex
from stvideo.data.lists.kinetics import is_kinetics, kinetics_classes
from stvideo.data.lists.listfiles import read_classes
from stvideo.data.lists.something import find_labels
from stvideo.settings.config import DataConfig


def build_index(config: DataConfig, split: str) -> VideoIndex:
    """The videos of ``split``, checked as far as that is cheap; raises `StvideoError`."""
    if split not in ("train", "val"):
        raise StvideoError(f"unknown split {split!r}: choose train or val")
    if not config.root:
        raise StvideoError("data.root is not set: name the folder that holds the videos, e.g. data.root=/data/k400")
    root = Path(config.root).expanduser()
    if not root.is_dir():
        what = "this is a file, the folder that holds the videos is expected" if root.exists() else "no such folder"
        raise StvideoError(f"data.root={config.root}: {what}")
    if not any(root.iterdir()):
        raise StvideoError(f"data.root={config.root}: the folder is empty")
    source = find_annotations(config, split, root)
    classes = _classes(config, root, split)
    index = read_annotations(source, root, classes, split)
    check_presence(index, root, source)
    return index


def find_annotations(config: DataConfig, split: str, root: Path) -> Path:
    """The annotations of ``split``: as given, below the root, or by the usual names in the root."""
    given = getattr(config, split)
    if given:
        for path in (Path(given).expanduser(), root / given):
            if path.exists():
                return path
        raise StvideoError(f"data.{split}={given}: no such file or folder, neither here nor in {root}")
    names = {"train": ("train.txt", "train.csv", "train"), "val": ("val.txt", "val.csv", "validate.csv", "val")}[split]
    for name in names:
        if (root / name).exists():
            return root / name
    raise StvideoError(
        f"data.{split} is not set and {root} has none of {', '.join(names)}: name the list file or folder"
    )


def _classes(config: DataConfig, root: Path, split: str) -> Sequence[str] | None:
    """Class names that hold for all splits, so that the numbers agree between them."""
    if config.classes:
        for path in (Path(config.classes).expanduser(), root / config.classes):
            if path.exists():
                return read_classes(path)
        raise StvideoError(f"data.classes={config.classes}: no such file, neither here nor in {root}")
    if split == "train":
        return None
    try:
        train = find_annotations(config, "train", root)
    except StvideoError:
        return None
    # Lists and Something-Something name their classes in a file beside them; Kinetics and folders only by what occurs
    # in training.
    if train.is_dir():
        return class_folders(train)
    if is_kinetics(train):
        return kinetics_classes(train, "train")
    beside = find_labels(train.parent) if train.suffix.lower() == ".json" else train.parent / "classes.txt"
    if beside is not None and beside.is_file():
        return read_classes(beside)
    return read_annotations(train, root, split="train").classes


def check_presence(index: VideoIndex, root: Path, source: Path, tries: int = 20) -> None:
    """If not one of some videos is there, the root is wrong: better said at once than after an hour."""
    chosen = np.unique(np.linspace(0, len(index) - 1, tries).astype(int))
    paths = [root / index.path(int(video)) for video in chosen]
    if not any(path.exists() for path in paths):
        raise StvideoError(f"{source}: none of {len(paths)} videos tried exists, e.g. {paths[0]}; is data.root right?")
