"""What an evaluation leaves behind: one line, metrics.json, predictions.csv, and a table of the classes."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from stvideo.core.errors import StvideoError
from stvideo.core.files import write_atomically
from stvideo.drawing.confusion import class_accuracy, confusion_matrix
from stvideo.evaluation.metrics import Predictions
from stvideo.evaluation.pictures import write_evaluation_pictures
from stvideo.evaluation.runner import Evaluation
from stvideo.evaluation.video_set import VideoSet
from stvideo.weights.restore import Restored


def describe(restored: Restored, videos: VideoSet, outcome: Evaluation, gmacs: float) -> dict[str, Any]:
    """What metrics.json says: the scores, and everything needed to compare them."""
    predictions = outcome.predictions
    assert predictions is not None
    config, protocol = restored.config, videos.protocol
    evaluated, expected = len(predictions.index), videos.dataset.listed
    of_all = max(videos.official or 0, expected)
    metrics = predictions.metrics()
    return {
        **metrics,
        "top1_missing_as_wrong": metrics["top1"] * evaluated / of_all,
        "classes": predictions.scores.shape[1],
        "protocol": protocol.name,
        "protocol_source": protocol.source,
        "views": protocol.views,
        **videos.dataset.reading.preprocessing.to_dict(),
        "averaging": f"{config.evaluate.average}, per video",
        "evaluated": evaluated,
        "expected": expected,
        "official": videos.official,
        "unreadable": [
            {"video": str(videos.dataset.path(video)), "reason": reason}
            for video, reason in sorted(outcome.unreadable.items())
        ],
        "gmacs_per_view": gmacs,
        "parameters": sum(p.numel() for p in restored.model.parameters()),
        "clips_per_second": outcome.clips_per_second,
        "data_wait_share": outcome.data_wait_share,
        "model": restored.metadata.get("model", {}).get("name"),
        "reduction": restored.reduction,
        "checkpoint": str(restored.path),
        "step": restored.metadata.get("step"),
        "precision": config.train.precision,
        "processes": videos.accelerator.num_processes,
    }


def one_line(metrics: dict[str, Any]) -> str:
    """The result as one line, with what a number needs beside it."""
    capped = "" if metrics["classes"] >= 5 else f" (there are only {metrics['classes']} classes)"
    named = "" if metrics["protocol"] == metrics["views"] else f"{metrics['protocol']}: "
    average = metrics["averaging"].split(",")[0]
    return (
        f"top-1 {metrics['top1']:.2f} %, top-5 {metrics['top5']:.2f} %{capped} | "
        f"{named}{metrics['views']} views (clips x crops), {average} averaged per video | {videos_in_words(metrics)} | "
        f"{metrics['gmacs_per_view']:.4g} GMACs per view | "
        f"{metrics['clips_per_second']:.1f} clips/s, {metrics['data_wait_share']:.0%} of the time waiting for data"
    )


def videos_in_words(metrics: dict[str, Any]) -> str:
    """``"19404 of 19881 videos of the official split (477 missing; 76.31 % if those count as wrong)"``."""
    evaluated, official = metrics["evaluated"], metrics["official"]
    of_all = max(official or 0, metrics["expected"])
    text = f"{evaluated} of {of_all} videos" + (" of the official split" if of_all == official else "")
    missing = of_all - evaluated
    if not missing:
        return text
    unreadable = f", {len(metrics['unreadable'])} of them unreadable" if metrics["unreadable"] else ""
    return (
        f"{text} ({missing} missing{unreadable}; top-1 {metrics['top1_missing_as_wrong']:.2f} % if they count as wrong)"
    )


def write_results(
    output: Path, restored: Restored, videos: VideoSet, outcome: Evaluation, metrics: dict[str, Any]
) -> list[Path]:
    """Write every file of an evaluation into ``output``; returns them.

    Raises:
        StvideoError: one cannot be written.
    """
    predictions, classes = outcome.predictions, restored.classes
    assert predictions is not None
    metrics_json, predictions_csv = output / "metrics.json", output / "predictions.csv"
    try:
        write_atomically(metrics_json, json.dumps(metrics, indent=2) + "\n")
        write_predictions(predictions_csv, predictions, classes, videos)
        tables = write_class_tables(output, predictions, classes)
    except OSError as error:
        raise StvideoError(f"{output}: cannot be written: {error.strerror or error}") from None
    pictures = write_evaluation_pictures(
        output,
        predictions.scores,
        predictions.truth,
        classes,
        path_of=lambda row: videos.dataset.path(int(predictions.index[row])),
        title="/".join(restored.path.parts[-3:]),
    )
    return [metrics_json, predictions_csv, *tables, *pictures]


def write_predictions(path: Path, predictions: Predictions, classes: list[str], videos: VideoSet) -> None:
    """One line per video: its number, path, true class, and the five best classes with their scores."""
    count = min(5, predictions.scores.shape[1])
    best = predictions.top_k(count)
    ranks = range(1, count + 1)
    rows: list[list[Any]] = [["index", "video", "truth", *(f"top{k}" for k in ranks), *(f"score{k}" for k in ranks)]]
    for row, (index, truth) in enumerate(zip(predictions.index, predictions.truth, strict=True)):
        names = [classes[k] for k in best[row]]
        scores = [f"{predictions.scores[row, k]:.6f}" for k in best[row]]
        path_as_text = str(videos.dataset.path(int(index))).encode("utf-8", "backslashreplace").decode()
        rows.append([index, path_as_text, classes[truth], *names, *scores])
    write_csv(path, rows)


def write_class_tables(output: Path, predictions: Predictions, classes: list[str]) -> list[Path]:
    """per_class.csv in the order of the classes, and per_class.txt with the worst first."""
    matrix = confusion_matrix(predictions.truth, predictions.top_k(1)[:, 0], len(classes))
    top1, totals = class_accuracy(matrix), matrix.sum(axis=1)
    in_top5 = np.bincount(predictions.truth[predictions.hits(min(5, len(classes)))], minlength=len(classes))
    mistakes = matrix.copy()
    np.fill_diagonal(mistakes, 0)
    rows: list[list[Any]] = []
    for number, name in enumerate(classes):
        total, often = int(totals[number]), int(mistakes[number].argmax())
        confused = [classes[often], int(mistakes[number, often])] if mistakes[number, often] else ["", 0]
        shares = [f"{100 * top1[number]:.2f}", f"{100 * in_top5[number] / total:.2f}"] if total else ["", ""]
        rows.append([number, name, total, int(matrix[number, number]), *shares, *confused])
    head = ["number", "class", "videos", "right", "top1", "top5", "most_often_taken_for", "so_many_times"]
    as_csv, as_text = output / "per_class.csv", output / "per_class.txt"
    write_csv(as_csv, [head, *rows])
    worst_first = sorted(rows, key=lambda row: (not row[2], float(row[4] or 0), -row[2]))
    width = max(len(name) for name in [*classes, "class"])
    lines = [f"{'class':<{width}}  videos  right   top-1 %   top-5 %  most often taken for"]
    lines += [
        f"{name:<{width}}  {total:>6}  {right:>5}  {first or '-':>8}  {five or '-':>8}  "
        + (f"{other} ({times})" if times else "-")
        for _, name, total, right, first, five, other, times in worst_first
    ]
    write_atomically(as_text, "\n".join(line.rstrip() for line in lines) + "\n")
    return [as_csv, as_text]


def write_csv(path: Path, rows: list[list[Any]]) -> None:
    """Write a table, to a temporary name first."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    write_atomically(path, text.getvalue())
