"""Plot the confusion matrix and the worst classes of an evaluation, from plain numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from stvideo.drawing.plots import new_figure, save_figure
from stvideo.drawing.text import plain

MOST_NAMES = 40  # more classes are drawn without their names
MOST_NUMBERS = 16  # more classes are drawn without numbers in the cells
RIGHT, WRONG, GRAY = "#2b8a3e", "#c92a2a", "#626874"


def confusion_matrix(truth: NDArray[np.int64], predicted: NDArray[np.int64], num_classes: int) -> NDArray[np.int64]:
    """Count videos: (K, K), row = true class, column = predicted class."""
    matrix = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(matrix, (truth, predicted), 1)
    return matrix


def class_accuracy(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Compute the share of each class's videos that were recognised, (K,); NaN for a class without videos."""
    totals = matrix.sum(axis=1)
    return np.divide(np.diag(matrix), totals, out=np.full(len(totals), np.nan), where=totals > 0)


def worst_classes(matrix: NDArray[np.int64], count: int) -> list[int]:
    """Rank the classes with the lowest accuracy, worst first; of equal ones those with more videos first."""
    accuracy, totals = class_accuracy(matrix), matrix.sum(axis=1)
    having = np.flatnonzero(totals > 0)
    return [int(k) for k in sorted(having, key=lambda k: (accuracy[k], -totals[k], k))[:count]]


def confusions(matrix: NDArray[np.int64], count: int) -> list[tuple[int, int, int]]:
    """Rank the most frequent mistakes as (true class, predicted class, videos)."""
    mistakes = matrix.copy()
    np.fill_diagonal(mistakes, 0)
    order = np.argsort(-mistakes, axis=None, kind="stable")[:count]
    pairs = np.transpose(np.unravel_index(order, matrix.shape)).tolist()
    return [(truth, guess, int(mistakes[truth, guess])) for truth, guess in pairs if mistakes[truth, guess]]


def plot_confusion(path: Path, matrix: NDArray[np.int64], classes: Sequence[str], title: str = "") -> None:
    """Plot the confusion matrix, each row as shares of its class. Large ones come with a list of the worst mistakes.

    Args:
        path: a PNG.
        matrix: (K, K) counts, from `confusion_matrix`.
        classes: K names.
        title: what was measured.
    """
    count = len(classes)
    totals = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, totals, out=np.zeros(matrix.shape), where=totals > 0)
    named = count <= MOST_NAMES
    side = 2.6 + (max(0.42 * count, 2.6) if named else 6.5)
    figure = new_figure(side + (1.2 if named else 6.0), side)
    if named:
        axes = figure.subplots()
    else:
        axes, beside = figure.subplots(1, 2, width_ratios=[1.5, 1])
        _list_mistakes(beside, matrix, classes)
    # Rare mistakes among many classes would be too pale to see.
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(1.0 if named else 0.4, 0, 1), interpolation="nearest")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if named:
        names = [plain(name, 28) for name in classes]
        axes.set_xticks(range(count), names, rotation=60, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(count), names)
    if count <= MOST_NUMBERS:
        for row, column in np.argwhere(matrix > 0):
            color = "white" if shares[row, column] > 0.55 else "#1c1e24"
            axes.text(column, row, str(matrix[row, column]), ha="center", va="center", color=color, fontsize=10)
    accuracy = f"{np.trace(matrix)} of {matrix.sum()} videos right"
    figure.suptitle(plain(f"{title}: {accuracy}" if title else accuracy, 90), x=0.02, ha="left", fontsize=12)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    save_figure(figure, path)


def _list_mistakes(axes: Axes, matrix: NDArray[np.int64], classes: Sequence[str]) -> None:
    axes.axis("off")
    axes.text(0, 1, "most frequent mistakes (true → predicted)", fontweight="bold", va="top", transform=axes.transAxes)
    lines = [
        f"{number:>4}   {plain(classes[truth], 30)} → {plain(classes[guess], 30)}"
        for truth, guess, number in confusions(matrix, 24)
    ]
    axes.text(0, 0.955, "\n".join(lines), va="top", fontsize=9, linespacing=1.7, transform=axes.transAxes)


def telling_videos(
    scores: NDArray[np.float32], truth: NDArray[np.int64], count: int = 8, videos: int = 6
) -> dict[int, list[int]]:
    """Choose videos of the classes with the lowest accuracy: confident mistakes first.

    Args:
        scores: (V, K) class probabilities per video.
        truth: (V,) true classes.
        count: classes at most; those without a mistake are left out.
        videos: videos per class at most.

    Returns:
        Rows of ``scores`` by class, the worst class first.
    """
    predicted = scores.argmax(axis=1)
    matrix = confusion_matrix(truth, predicted, scores.shape[1])
    chosen = {}
    for k in worst_classes(matrix, count):
        if matrix[k, k] < matrix[k].sum():
            order = sorted(np.flatnonzero(truth == k), key=lambda v: (predicted[v] == k, -scores[v, predicted[v]]))
            chosen[k] = [int(v) for v in order[:videos]]
    return chosen


def plot_videos(
    path: Path,
    chosen: Mapping[int, Sequence[int]],
    frames: Mapping[int, NDArray[np.uint8]],
    scores: NDArray[np.float32],
    truth: NDArray[np.int64],
    classes: Sequence[str],
    title: str = "",
) -> None:
    """Plot a row per class: its accuracy, and some of its videos with the class that they were taken for.

    Args:
        path: a PNG.
        chosen: videos by class, at least one class, from `telling_videos`.
        frames: a frame (h, w, 3) uint8 of each video; those without one are left out.
        scores: (V, K) class probabilities per video.
        truth: (V,) true classes.
        classes: K names.
        title: the line above them.
    """
    predicted = scores.argmax(axis=1)
    most = max(map(len, chosen.values()))
    figure = new_figure(2.4 + 1.6 * most, 0.6 + 1.6 * len(chosen))
    for row, (k, videos) in zip(figure.subplots(len(chosen), 1 + most, squeeze=False), chosen.items(), strict=True):
        for axes in row:
            axes.axis("off")
        right, total = int((predicted[truth == k] == k).sum()), int((truth == k).sum())
        row[0].text(0, 0.52, "\n".join(wrap(plain(classes[k], 44), 22)), va="bottom", fontweight="bold", fontsize=10)
        row[0].text(0, 0.45, f"{right} of {total} right ({right / total:.0%})", va="top", color=GRAY, fontsize=9)
        for axes, video in zip(row[1:], [v for v in videos if v in frames], strict=False):
            guess, (height, width) = predicted[video], frames[video].shape[:2]
            mark, color = ("✓", RIGHT) if guess == k else ("✗", WRONG)
            axes.imshow(frames[video])
            axes.add_patch(Rectangle((-0.5, -0.5), width, height, fill=False, edgecolor=color, linewidth=3))
            text = f"{plain(classes[guess], 24)}\n{mark} {scores[video, guess]:.0%}"
            axes.text(0.5, -0.04, text, va="top", ha="center", color=color, fontsize=8, transform=axes.transAxes)
    if title:
        figure.suptitle(plain(title, 90), x=0.02, ha="left", fontsize=12, fontweight="bold")
    save_figure(figure, path)
