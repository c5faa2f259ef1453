"""Compare two evaluations on the same videos: how much better is A than B, and could it be chance?

    python -m stvideo.compare runs/evit runs/dense
    python -m stvideo.compare runs/x/sweep/predictions/keep_rate-0.5.csv runs/x/predictions.csv
    python -m stvideo.compare A B --json

A and B are folders with the predictions.csv of `stvideo.evaluate`, or such files. Videos are paired by their paths. The
interval of A - B is a bootstrap over videos (10,000 draws); McNemar's exact test looks at the videos that A alone or B
alone got right. Pairing tells smaller differences apart than the two accuracies by themselves, because the same videos
are hard for both. Other videos or classes are refused, other views are warned about.

    --json          everything as JSON on standard output
"""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stvideo.core.errors import StvideoError
from stvideo.core.messages import logger
from stvideo.evaluation.paired import paired_difference
from stvideo.settings import cli

COLUMNS = ("index", "video", "truth", "top1", "score1")
SAME = ("views", "averaging", "sampling")  # of metrics.json: what should agree for a comparison of models


@dataclass(frozen=True)
class Answers:
    """What one evaluation said about each video.

    Attributes:
        path: the predictions file.
        truth: true class by video.
        ranked: the classes by video, best first.
        settings: what metrics.json beside it says; empty if it is not there.
        classes: their names in order, from per_class.csv beside it; empty if it is not there.
    """

    path: Path
    truth: dict[str, str]
    ranked: dict[str, list[str]]
    settings: dict[str, Any]
    classes: list[str]

    def hits(self, videos: list[str], k: int) -> NDArray[np.bool_]:
        """(V,) whether the true class is among the ``k`` best."""
        return np.array([self.truth[video] in self.ranked[video][:k] for video in videos])


def main(argv: list[str] | None = None) -> int:
    """The command. Returns its exit status."""
    positional, overrides = cli.split_arguments(argv, __doc__ or "", ("--json",))
    given = [text for text in positional if text != "--json"]
    if overrides or len(given) != 2:
        raise StvideoError(
            f"compare takes two evaluations, got {' '.join([*given, *overrides]) or 'nothing'}; "
            "example: python -m stvideo.compare runs/evit runs/dense"
        )
    a, b = (read_answers(Path(text)) for text in given)
    check_comparable(a, b)
    result = compare(a, b)
    print(json.dumps(result, indent=2) if "--json" in positional else in_words(result), flush=True)
    return 0


def compare(a: Answers, b: Answers) -> dict[str, Any]:
    """Accuracies of both and their paired differences, in per cent."""
    videos = sorted(a.truth)
    result: dict[str, Any] = {"a": str(a.path), "b": str(b.path), "videos": len(videos)}
    for k in (1, 5):
        if k > min(len(next(iter(a.ranked.values()))), len(next(iter(b.ranked.values())))):
            continue  # fewer than five classes
        hits_a, hits_b = a.hits(videos, k), b.hits(videos, k)
        result[f"top{k}"] = {
            "a": 100.0 * float(hits_a.mean()),
            "b": 100.0 * float(hits_b.mean()),
            **asdict(paired_difference(hits_a, hits_b)),
        }
    return result


def in_words(result: dict[str, Any]) -> str:
    """The comparison for people."""
    lines = [f"A  {result['a']}", f"B  {result['b']}", f"{result['videos']} videos"]
    for k in (1, 5):
        part = result.get(f"top{k}")
        if part is None:
            continue
        lines.append(f"top-{k}: A {part['a']:.2f} %, B {part['b']:.2f} %")
        if not part["only_a"] + part["only_b"]:
            lines.append("  A and B got the same videos right; that they differ cannot be told from these videos")
            continue
        interval = f"[{part['low']:+.2f}, {part['high']:+.2f}]"
        lines += [
            f"  A - B = {part['difference']:+.2f} points, 95 % interval {interval} (paired bootstrap over videos)",
            f"  A alone right on {part['only_a']} videos, B alone on {part['only_b']}; "
            f"McNemar's exact test: p = {part['p_value']:.2g}",
        ]
    return "\n".join(lines)


def read_answers(path: Path) -> Answers:
    """The predictions of ``path``, a file or a folder that holds predictions.csv.

    Raises:
        StvideoError: there are none, or not in the form that `stvideo.evaluate` writes.
    """
    file = path / "predictions.csv" if path.is_dir() else path
    if not file.is_file():
        hint = "; run stvideo.evaluate on it first" if path.is_dir() else ""
        raise StvideoError(f"{path}: no predictions here{hint}")
    truth: dict[str, str] = {}
    ranked: dict[str, list[str]] = {}
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            columns = reader.fieldnames or []
            if any(column not in columns for column in COLUMNS):
                raise StvideoError(f"{file}: not a predictions file: it needs the columns {', '.join(COLUMNS)}")
            ranks = [column for column in columns if column in {f"top{k}" for k in range(1, 6)}]
            for row in reader:
                if any(row.get(column) is None for column in (*COLUMNS, *ranks)):
                    raise StvideoError(f"{file}:{reader.line_num}: a column is missing; was it cut off?")
                if row["video"] in truth:
                    raise StvideoError(f"{file}:{reader.line_num}: {row['video']} comes twice")
                truth[row["video"]] = row["truth"]
                ranked[row["video"]] = [row[column] for column in ranks]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise StvideoError(f"{file}: cannot be read: {error}") from None
    if not truth:
        raise StvideoError(f"{file}: no video in it")
    whole = file.name == "predictions.csv"  # those of a sweep have no files of their own beside them
    settings = _settings(file.with_name("metrics.json")) if whole else {}
    return Answers(file, truth, ranked, settings, _classes(file.with_name("per_class.csv")) if whole else [])


def check_comparable(a: Answers, b: Answers) -> None:
    """Refuse what cannot be paired, and warn of evaluations that were done in different ways.

    Raises:
        StvideoError: different videos, or classes.
    """
    only_a, only_b = sorted(a.truth.keys() - b.truth.keys()), sorted(b.truth.keys() - a.truth.keys())
    if only_a or only_b:
        example = (only_a or only_b)[0]
        moved = {Path(v).name for v in a.truth} == {Path(v).name for v in b.truth}
        hint = "; the file names agree, so evaluate both from the same data.root" if moved else ""
        raise StvideoError(
            f"{a.path} and {b.path}: not the same videos: {len(only_a)} are in the first only, {len(only_b)} in the "
            f"second only, e.g. {example}{hint}"
        )
    if a.classes and b.classes and a.classes != b.classes:
        if sorted(a.classes) == sorted(b.classes):
            place = next(i for i, (x, y) in enumerate(zip(a.classes, b.classes, strict=True)) if x != y)
            how = f"the same classes in another order: class {place} is {a.classes[place]!r} and {b.classes[place]!r}"
        else:
            how = f"other classes: {len(a.classes)} and {len(b.classes)}"
            different = sorted(set(a.classes) ^ set(b.classes))
            how += f", e.g. {different[0]!r} is only in one" if different else ""
        raise StvideoError(f"{a.path} and {b.path}: {how}")
    relabelled = [video for video in a.truth if a.truth[video] != b.truth[video]]
    if relabelled:
        video = relabelled[0]
        raise StvideoError(
            f"{a.path} and {b.path}: {len(relabelled)} videos have another true class, e.g. {video}: "
            f"{a.truth[video]!r} and {b.truth[video]!r}"
        )
    for key in SAME:
        first, second = a.settings.get(key), b.settings.get(key)
        if first is not None and second is not None and first != second:
            logger.warning(f"the two were not measured alike: {key} {first!r} and {second!r}")


def _settings(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _classes(path: Path) -> list[str]:
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            return [row["class"] for row in csv.DictReader(stream) if row.get("class")]
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


if __name__ == "__main__":
    cli.run(main)
