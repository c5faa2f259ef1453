"""Answers of finished evaluations, read back from predictions.csv, and whether two of them can be paired."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stvideo.core.errors import StvideoError
from stvideo.core.messages import logger

COLUMNS = ("index", "video", "truth", "top1", "score1")
SAME = ("views", "averaging", "sampling")  # of metrics.json: what should agree for a comparison of models


@dataclass(frozen=True)
class Answers:
    """The answers of one evaluation.

    Attributes:
        path: the predictions file.
        truth: true class by video.
        ranked: the classes by video, best first.
        settings: metrics.json beside it; empty if it is not there.
        classes: their names in order, from per_class.csv beside it; empty if it is not there.
    """

    path: Path
    truth: dict[str, str]
    ranked: dict[str, list[str]]
    settings: dict[str, Any]
    classes: list[str]

    def hits(self, k: int = 1) -> NDArray[np.bool_]:
        """Tell for each video (V,), sorted by name, whether the true class is among the ``k`` best."""
        return np.array([self.truth[video] in self.ranked[video][:k] for video in sorted(self.truth)])


def read_answers(path: Path) -> Answers:
    """Read the predictions of ``path``, a file or a folder that holds predictions.csv.

    Raises:
        StvideoError: there are none, or not in the form that `stvideo.evaluate` writes.
    """
    file = path / "predictions.csv" if path.is_dir() else path
    if not file.is_file():
        hint = "; run stvideo.evaluate on it first" if path.is_dir() else ""
        raise StvideoError(f"{path}: no predictions here{hint}")
    rows = _read_rows(file)
    if not rows:
        raise StvideoError(f"{file}: no video in it")
    columns = list(rows[0])
    if any(column not in columns for column in COLUMNS):
        raise StvideoError(f"{file}: not a predictions file: it needs the columns {', '.join(COLUMNS)}")
    ranks = [column for column in columns if column in {f"top{k}" for k in range(1, 6)}]
    truth: dict[str, str] = {}
    ranked: dict[str, list[str]] = {}
    for line, row in enumerate(rows, 2):
        if None in (row[column] for column in (*COLUMNS, *ranks)):
            raise StvideoError(f"{file}:{line}: a column is missing; was it cut off?")
        if row["video"] in truth:
            raise StvideoError(f"{file}:{line}: {row['video']} comes twice")
        truth[row["video"]] = row["truth"]
        ranked[row["video"]] = [row[column] for column in ranks]
    settings: dict[str, Any] = {}
    classes: list[str] = []
    if file.name == "predictions.csv":  # those of a sweep have no files of their own beside them
        metrics, per_class = file.with_name("metrics.json"), file.with_name("per_class.csv")
        try:
            settings = json.loads(metrics.read_text(encoding="utf-8")) if metrics.exists() else {}
        except (OSError, ValueError) as error:
            raise StvideoError(f"{metrics}: cannot be read: {error}") from None
        classes = [row["class"] for row in _read_rows(per_class)] if per_class.exists() else []
    return Answers(file, truth, ranked, settings, classes)


def check_comparable(a: Answers, b: Answers) -> None:
    """Refuse what cannot be paired, and warn of evaluations that were done in different ways.

    Raises:
        StvideoError: different videos, or classes.
    """
    both = f"{a.path} and {b.path}"
    only_a, only_b = sorted(a.truth.keys() - b.truth.keys()), sorted(b.truth.keys() - a.truth.keys())
    if only_a or only_b:
        example = (only_a or only_b)[0]
        moved = {Path(v).name for v in a.truth} == {Path(v).name for v in b.truth}
        hint = "; the file names agree, so evaluate both from the same data.root" if moved else ""
        raise StvideoError(
            f"{both}: not the same videos: {len(only_a)} are in the first only, {len(only_b)} in the "
            f"second only, e.g. {example}{hint}"
        )
    if a.classes and b.classes and a.classes != b.classes:
        pairs = enumerate(zip_longest(a.classes, b.classes, fillvalue="missing"))
        place, (first, second) = next((place, pair) for place, pair in pairs if pair[0] != pair[1])
        what = "the same classes in another order" if sorted(a.classes) == sorted(b.classes) else "other classes"
        raise StvideoError(f"{both}: {what}: class {place} is {first!r} and {second!r}")
    for video, truth in a.truth.items():
        if truth != b.truth[video]:
            raise StvideoError(f"{both}: another true class of {video}: {truth!r} and {b.truth[video]!r}")
    for key in SAME:
        values = [each.settings[key] for each in (a, b) if key in each.settings]
        if len(values) == 2 and values[0] != values[1]:
            logger.warning("the two were not measured alike: %s %r and %r", key, *values)


def _read_rows(file: Path) -> list[dict[str, Any]]:
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise StvideoError(f"{file}: cannot be read: {error}") from None
