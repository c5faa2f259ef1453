"""Turn whatever a person has into a `VideoIndex`: list file, official annotations, class folders, a configuration."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stvideo.core.errors import StvideoError
from stvideo.core.files import exists
from stvideo.data.lists.disk import video_files
from stvideo.data.lists.index import IndexBuilder, VideoIndex, without
from stvideo.data.lists.joining import known_label
from stvideo.data.lists.kinetics import is_kinetics, kinetics_classes, read_kinetics
from stvideo.data.lists.listfiles import read_classes, read_list
from stvideo.data.lists.something import find_labels, read_ssv2
from stvideo.data.lists.split_report import official_size
from stvideo.data.video.formats import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from stvideo.settings.schema import DataConfig

_USUAL_NAMES = {"train": ("train.txt", "train.csv", "train"), "val": ("val.txt", "val.csv", "validate.csv", "val")}


def build_index(config: DataConfig, split: str) -> VideoIndex:
    """List the videos of ``split``, checked as far as that is cheap; raises `StvideoError`."""
    if split not in _USUAL_NAMES:
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
    index = read_annotations(source, root, _classes(config, root, split), split)
    check_presence(index, root, source)
    return index


def read_annotations(
    source: Path, root: Path, classes: Sequence[str] | None = None, split: str | None = None
) -> VideoIndex:
    """Read ``source``, telling by itself what it is.

    Args:
        source: a list file, an official Kinetics CSV or JSON, a Something-Something JSON, or a folder of class folders.
        root: folder that the videos are in and that relative paths start from.
        classes: class names; None takes them from the annotations (for lists from a classes.txt beside the list).
        split: for Kinetics annotations that hold several splits: keep only rows of this one.

    Raises:
        StvideoError: the source is missing, malformed or empty; the message names file and line.
    """
    if source.is_dir():
        return read_folders(source, root, classes)
    if not source.exists():
        raise StvideoError(f"{source}: no such list file or folder")
    if is_kinetics(source):
        return read_kinetics(source, root, classes, split)
    if source.suffix.lower() == ".json":
        return read_ssv2(source, root, classes)
    beside = source.parent / "classes.txt"
    if classes is None and beside.is_file():
        classes = read_classes(beside)
    index = read_list(source, root, classes)
    index.official = official_size(source)
    return index


def read_folders(folder: Path, root: Path, classes: Sequence[str] | None = None) -> VideoIndex:
    """Read a folder of class folders: ``folder/arm wrestling/any/where/x.mp4``. Folder names are the class names.

    Where there is no video but there are images (ImageNet's layout), every image is a clip of one frame.
    """
    prefix = path_below(folder, root)
    names = class_folders(folder)
    if not names:
        raise StvideoError(f"{folder}: no class folders in it; expected one folder per class, videos inside")
    known = list(classes) if classes is not None else names
    numbers = {name: number for number, name in enumerate(known)}
    labels = [numbers[known_label(name, numbers, f"{folder / name}")] for name in names]
    for suffixes in (VIDEO_SUFFIXES, IMAGE_SUFFIXES):
        builder = IndexBuilder()
        for name, label in zip(names, labels, strict=True):
            for file in video_files(folder / name, suffixes):
                builder.add(f"{prefix}{name}/{file}", label)
        if len(builder):
            index = builder.finish(known)
            index.notes += without(index.empty_classes())
            return index
    raise StvideoError(f"{folder}: no videos in its class folders (looked for {' '.join(VIDEO_SUFFIXES)})")


def class_folders(folder: Path) -> list[str]:
    """List the folders in ``folder``, sorted; hidden ones are not counted."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())


def path_below(path: Path, root: Path) -> str:
    """Make ``path`` relative to ``root``, with a slash at its end unless it is the root; raises `StvideoError`."""
    try:
        relative = path.absolute().relative_to(root.absolute()).as_posix()
    except ValueError:
        raise StvideoError(f"{path}: lies outside the data root {root}") from None
    return "" if relative == "." else f"{relative}/"


def find_annotations(config: DataConfig, split: str, root: Path) -> Path:
    """Find the annotations of ``split``: as given, below the root, or by the usual names in the root."""
    given = getattr(config, split)
    if given:
        return find_file(given, root, split)
    for name in _USUAL_NAMES[split]:
        if (root / name).exists():
            return root / name
    usual = ", ".join(_USUAL_NAMES[split])
    raise StvideoError(f"data.{split} is not set and {root} has none of {usual}: name the list file or folder")


def find_file(given: str, root: Path, key: str) -> Path:
    """Find what ``data.KEY`` names, from here or from the root; raises `StvideoError`."""
    for path in (Path(given).expanduser(), root / given):
        if exists(path):
            return path
    raise StvideoError(f"data.{key}={given}: no such file or folder, neither here nor in {root}")


def _classes(config: DataConfig, root: Path, split: str) -> Sequence[str] | None:
    """Find class names that hold for all splits, so that the numbers agree between them."""
    if config.classes:
        return read_classes(find_file(config.classes, root, "classes"))
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
    """Check that one of some videos is there; else the root is wrong, better said at once than after an hour."""
    chosen = np.unique(np.linspace(0, len(index) - 1, tries).astype(int))
    paths = [root / index.path(int(video)) for video in chosen]
    if not any(map(exists, paths)):
        raise StvideoError(f"{source}: none of {len(paths)} videos tried exists, e.g. {paths[0]}; is data.root right?")
