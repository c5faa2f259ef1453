"""What an evaluation leaves behind: one line, metrics.json, predictions.csv, a table of the classes, and pictures."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stvideo.core.files import write_atomically
from stvideo.data.video.decode import UnreadableVideo, open_video
from stvideo.drawing.confusion import class_accuracy, confusion_matrix, plot_confusion, plot_videos, telling_videos
from stvideo.evaluation.metrics import Predictions
from stvideo.evaluation.video_set import Evaluation, VideoSet
from stvideo.reduction.apply import reduction_options
from stvideo.weights.restore import Restored

FRAME_SIDE = 240  # pixels of the shorter side of the frames in worst_classes.png


def set_facts(videos: VideoSet, outcome: Evaluation) -> dict[str, Any]:
    """Describe the videos and how they were measured: what any accuracy needs beside it."""
    config, protocol = videos.config, videos.protocol
    return {
        "protocol": protocol.name,
        "protocol_source": protocol.source,
        "views": protocol.views,
        "averaging": f"{config.evaluate.average}, per video",
        "expected": videos.dataset.listed,
        "official": videos.official,
        "unreadable": [
            {"video": str(videos.dataset.path(video)), "reason": reason}
            for video, reason in sorted(outcome.unreadable.items())
        ],
        "precision": config.train.precision,
        "processes": videos.accelerator.num_processes,
    }


def describe(restored: Restored, videos: VideoSet, outcome: Evaluation, gmacs: float) -> dict[str, Any]:
    """Fill metrics.json: the scores, and everything needed to compare them."""
    predictions, facts = outcome.predictions[0], set_facts(videos, outcome)
    metrics, evaluated = predictions.metrics(), len(predictions.index)
    of_all = max(videos.official or 0, facts["expected"])
    return {
        **metrics,
        "top1_missing_as_wrong": metrics["top1"] * evaluated / of_all,
        "classes": predictions.scores.shape[1],
        **facts,
        **videos.dataset.reading.preprocessing.to_dict(),
        "evaluated": evaluated,
        "gmacs_per_view": gmacs,
        "parameters": sum(p.numel() for p in restored.model.parameters()),
        "clips_per_second": outcome.clips_per_second,
        "data_wait_share": outcome.data_wait_share,
        "model": restored.model.metadata.get("model", {}).get("name"),
        "reduction": reduction_options(restored.model),
        "checkpoint": str(restored.path),
        "step": restored.model.metadata.get("step"),
    }


def one_line(metrics: dict[str, Any]) -> str:
    """Write the result as one line, with what a number needs beside it."""
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
    """Format ``"19404 of 19881 videos of the official split (477 missing; 76.31 % if those count as wrong)"``."""
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
    output: Path, restored: Restored, videos: VideoSet, predictions: Predictions, metrics: dict[str, Any]
) -> list[Path]:
    """Write every file of an evaluation into ``output``; returns them.

    Raises:
        StvideoError: one cannot be written.
    """
    files = [output / name for name in ("metrics.json", "predictions.csv", "per_class.csv")]
    write_atomically(files[0], json.dumps(metrics, indent=2) + "\n")
    write_predictions(files[1], predictions, restored.model.classes, videos)
    write_csv(files[2], class_rows(predictions, restored.model.classes))
    title = "/".join(restored.path.parts[-3:])
    return files + write_pictures(output, predictions, restored.model.classes, videos.dataset.path, title)


def write_predictions(path: Path, predictions: Predictions, classes: list[str], videos: VideoSet) -> None:
    """Write one line per video: its number, path, true class, and the five best classes with their scores."""
    best = predictions.top_k(5)
    ranks = range(1, best.shape[1] + 1)
    rows: list[list[Any]] = [["index", "video", "truth", *(f"top{k}" for k in ranks), *(f"score{k}" for k in ranks)]]
    for row, (index, truth) in enumerate(zip(predictions.index, predictions.truth, strict=True)):
        names = [classes[k] for k in best[row]]
        scores = [f"{predictions.scores[row, k]:.6f}" for k in best[row]]
        path_as_text = str(videos.dataset.path(int(index))).encode("utf-8", "backslashreplace").decode()
        rows.append([index, path_as_text, classes[truth], *names, *scores])
    write_csv(path, rows)


def class_rows(predictions: Predictions, classes: list[str]) -> list[list[Any]]:
    """List for every class how often it was recognised, and what it was most often taken for; the first row names."""
    matrix = confusion_matrix(predictions.truth, predictions.top_k(1)[:, 0], len(classes))
    top1, totals, right = class_accuracy(matrix), matrix.sum(axis=1), np.diag(matrix)
    in_top5 = np.bincount(predictions.truth[predictions.hits(5)], minlength=len(classes))
    mistakes = matrix - np.diag(right)
    often = mistakes.argmax(axis=1)
    rows: list[list[Any]] = []
    for number, name in enumerate(classes):
        total, times = totals[number], mistakes[number, often[number]]
        shares = [f"{100 * top1[number]:.2f}", f"{100 * in_top5[number] / total:.2f}"] if total else ["", ""]
        rows.append([number, name, total, right[number], *shares, classes[often[number]] if times else "", times])
    head = ["number", "class", "videos", "right", "top1", "top5", "most_often_taken_for", "so_many_times"]
    return [head, *rows]


def write_pictures(
    output: Path, predictions: Predictions, classes: list[str], path_of: Callable[[int], Path], title: str
) -> list[Path]:
    """Write confusion.png and, if there are mistakes, worst_classes.png, which shows frames of ``path_of(video id)``.

    Raises:
        StvideoError: a file cannot be written.
    """

    confusion, worst = output / "confusion.png", output / "worst_classes.png"
    truth, scores = predictions.truth, predictions.scores
    plot_confusion(confusion, confusion_matrix(truth, predictions.top_k(1)[:, 0], len(classes)), classes, title)
    chosen = telling_videos(scores, truth)
    if not chosen:
        worst.unlink(missing_ok=True)  # of an earlier, worse evaluation
        return [confusion]
    found = {row: _middle_frame(path_of(int(predictions.index[row]))) for rows in chosen.values() for row in rows}
    frames = {row: frame for row, frame in found.items() if frame is not None}
    plot_videos(worst, chosen, frames, scores, truth, classes, f"Worst classes: {title}")
    return [confusion, worst]


def _middle_frame(path: Path) -> NDArray[np.uint8] | None:
    try:
        with open_video(path) as video:
            size = FRAME_SIDE if video.short_side > FRAME_SIDE else None
            return video.read([video.num_frames // 2], size=size)[0].numpy()
    except UnreadableVideo:
        return None  # it has gone since


def as_table(rows: Sequence[Sequence[str]]) -> str:
    """Lay out rows of text as a Markdown table whose head is the first row; all columns but the first to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["| " + " | ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) + " |" for row in rows]
    rule = "|".join(["", "-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:]), ""])
    return "\n".join([lines[0], rule, *lines[1:]])


def write_csv(path: Path, rows: Iterable[Iterable[Any]]) -> None:
    """Write a table, to a temporary name first."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    write_atomically(path, text.getvalue())
