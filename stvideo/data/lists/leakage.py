"""Find what makes an accuracy untrue: validation videos that are trained on, and labels that say nothing."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

import numpy as np

from stvideo.data.lists.index import VideoIndex
from stvideo.data.lists.manifest import Checked

# "dQw4w9WgXcQ_000010_000020.mp4", "Some title [dQw4w9WgXcQ].mp4" or "dQw4w9WgXcQ.mp4"
_ID_WITH_TIMES, _ID_IN_BRACKETS, _BARE_ID = map(
    re.compile, (r"([\w-]{11})_\d{6}_\d{6}$", r".*\[([\w-]{11})\]$", r"([\w-]{11})$")
)
_LEAST_CHANGES = 5  # of upper case, lower case, digit and sign in a bare name: an id is random, "Archery_001" is not


def shared_videos(
    train: VideoIndex, val: VideoIndex, root: Path, checked: tuple[Checked | None, Checked | None] = (None, None)
) -> str | None:
    """Say how many videos of ``val`` are in ``train`` too, by path, by YouTube id or by content; None if none is.

    Contents are compared where the manifests in ``checked`` (of the two lists) know two files of equal size and length.
    """
    found: dict[int, tuple[str, int]] = {}
    known = {hash_: number for number, hash_ in enumerate(train.path_hashes().tolist())}
    for number, hash_ in enumerate(val.path_hashes().tolist()):
        if hash_ in known:
            found[number] = ("by path", known[hash_])
    ids = {video: number for number, path in enumerate(train.paths()) if (video := youtube_id(path))}
    for number, path in enumerate(val.paths()):
        if (video := youtube_id(path)) in ids:
            found.setdefault(number, ("by YouTube id", ids[str(video)]))
    for number, other in _equal_files(train, val, root, *checked):
        found.setdefault(number, ("by content", other))
    if not found:
        return None
    ways = Counter(way for way, _ in found.values())
    number, (_, other) = next(iter(found.items()))
    return (
        f"{len(found):,} of {len(val):,} videos of data.val are in data.train too "
        f"({', '.join(f'{count:,} {way}' for way, count in ways.items())}), "
        f"e.g. {val.path(number)} and {train.path(other)}"
    )


def doubtful_labels(index: VideoIndex) -> list[str]:
    """Say that all labels of a list are alike, or that one video is in several classes; no line where all is well."""
    notes = []
    if len(index) > 1 and np.all(index.labels == index.labels[0]):
        notes.append(f"all {len(index):,} videos are of class {index.classes[int(index.labels[0])]!r}")
    first_of: dict[object, int] = {}
    pairs = []
    for number, path in enumerate(index.paths()):
        name = Path(path).stem if youtube_id(path) else path
        first = first_of.setdefault((name, index.span(number)), number)
        if index.labels[first] != index.labels[number]:
            pairs.append((first, number))
    if pairs:
        first, again = pairs[0]
        notes.append(f"videos in two classes: {len(pairs):,}, e.g. {index.path(first)} and {index.path(again)}")
    return notes


def youtube_id(path: str) -> str | None:
    """The YouTube id that a file is named by, if it is."""
    stem = Path(path).stem
    match = _ID_WITH_TIMES.match(stem) or _ID_IN_BRACKETS.match(stem)
    if match:
        return match[1]
    kinds = ["d" if sign.isdigit() else "u" if sign.isupper() else "l" if sign.islower() else "-" for sign in stem]
    return stem if _BARE_ID.match(stem) and len(list(groupby(kinds))) > _LEAST_CHANGES else None


def _equal_files(
    train: VideoIndex, val: VideoIndex, root: Path, train_checked: Checked | None, val_checked: Checked | None
) -> Iterable[tuple[int, int]]:
    """Pairs (number in ``val``, number in ``train``) of files with the same bytes."""
    if train_checked is None or val_checked is None:
        return
    likely: dict[tuple[int, int], list[int]] = {}
    for number, shape in enumerate(train_checked.shapes()):
        likely.setdefault(shape, []).append(number)
    for number, shape in enumerate(val_checked.shapes()):
        others = likely.get(shape, []) if shape[0] else []
        digest = _digest(root / val.path(number)) if others else None
        for other in others:
            if digest is not None and _digest(root / train.path(other)) == digest:
                yield number, other
                break


def _digest(path: Path) -> str | None:
    state = hashlib.sha256()
    try:
        with path.open("rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                state.update(block)
        return state.hexdigest()
    except OSError:
        return None
