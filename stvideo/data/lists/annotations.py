"""Whatever a person has -> `VideoIndex`: list file, Kinetics or Something-Something annotations, class folders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from stvideo.core.errors import StvideoError
from stvideo.data.lists.disk import VIDEO_SUFFIXES, video_files
from stvideo.data.lists.index import IndexBuilder, VideoIndex
from stvideo.data.lists.kinetics import is_kinetics, read_kinetics
from stvideo.data.lists.listfiles import empty_class_notes, read_classes, read_list
from stvideo.data.lists.something import read_ssv2
from stvideo.data.lists.split_report import official_size
from stvideo.data.video.images import IMAGE_SUFFIXES
from stvideo.preparation.joining import known_label

__all__ = ["VIDEO_SUFFIXES", "class_folders", "is_kinetics", "read_annotations", "read_folders", "video_files"]


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
    """A folder of class folders: ``folder/arm wrestling/any/where/x.mp4``. Folder names are the class names.

    Where there is no video but there are images (ImageNet's layout), every image is a clip of one frame.
    """
    try:
        prefix = folder.absolute().relative_to(root.absolute()).as_posix()
    except ValueError:
        raise StvideoError(f"{folder}: this folder of classes lies outside the data root {root}") from None
    prefix = "" if prefix == "." else f"{prefix}/"
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
            index.notes += empty_class_notes(index)
            return index
    raise StvideoError(f"{folder}: no videos in its class folders (looked for {' '.join(VIDEO_SUFFIXES)})")


def class_folders(folder: Path) -> list[str]:
    """Names of the folders in ``folder``, sorted; hidden ones are not counted."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())
