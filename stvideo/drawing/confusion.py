"""Pictures of an evaluation: the confusion matrix and the worst classes. From plain numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Example:
    """A video of a class: one of its frames (h, w, 3) uint8, and the class it was taken for."""

    frame: NDArray[np.uint8]
    predicted: str
    probability: float
    right: bool


@dataclass(frozen=True)
class ClassRow:
    """A class with how well it was recognised and some of its videos."""

    name: str
    right: int
    total: int
    examples: list[Example]


def worst_class_rows(
    scores: NDArray[np.float32],
    truth: NDArray[np.int64],
    classes: Sequence[str],
    frame_of: Callable[[int], NDArray[np.uint8] | None],
    count: int = 8,
    videos: int = 6,
) -> list[ClassRow]:
    """Choose the worst classes of an evaluation with their most telling videos: confident mistakes first.

    Args:
        scores: (V, K) class probabilities per video.
        truth: (V,) true classes.
        frame_of: gives a frame (h, w, 3) uint8 of video number v, or None if it cannot.
        count: classes at most; those without a mistake are left out.
        videos: videos per class.
    """
    predicted = scores.argmax(axis=1)
    matrix = confusion_matrix(truth, predicted, len(classes))
    rows = []
    for k in worst_classes(matrix, count):
        if matrix[k, k] == matrix[k].sum():
            break  # from here on there are no mistakes
        members = np.flatnonzero(truth == k)
        order = sorted(members, key=lambda v: (predicted[v] == k, -scores[v, predicted[v]]))
        examples = []
        for v in order[:videos]:
            frame = frame_of(int(v))
            if frame is not None:
                guess = int(predicted[v])
                examples.append(Example(frame, classes[guess], float(scores[v, guess]), guess == k))
        rows.append(ClassRow(classes[k], int(matrix[k, k]), int(matrix[k].sum()), examples))
    return rows


def plot_class_rows(path: Path, rows: Sequence[ClassRow], title: str = "") -> None:
    """Plot a row per class: its accuracy, and its videos with what they were taken for.

    Args:
        path: a PNG.
        rows: at least one, from `worst_class_rows`.
        title: the line above them.
    """
    most = max(len(row.examples) for row in rows)
    figure = new_figure(max(2.4 + 1.6 * most, 5), 0.6 + 1.6 * len(rows))
    for grid_row, row in zip(figure.subplots(len(rows), 1 + most, squeeze=False), rows, strict=True):
        for axes in grid_row:
            axes.axis("off")
        share = f" ({row.right / row.total:.0%})" if row.total else ""
        name = "\n".join(wrap(plain(row.name, 44), 22))
        grid_row[0].text(0, 0.52, name, va="bottom", fontweight="bold", fontsize=10)
        grid_row[0].text(0, 0.45, f"{row.right} of {row.total} right{share}", va="top", color=GRAY, fontsize=9)
        for axes, example in zip(grid_row[1:], row.examples, strict=False):
            color = RIGHT if example.right else WRONG
            height, width = example.frame.shape[:2]
            axes.imshow(example.frame)
            axes.add_patch(Rectangle((-0.5, -0.5), width, height, fill=False, edgecolor=color, linewidth=3))
            mark = "✓" if example.right else "✗"
            text = f"{plain(example.predicted, 24)}\n{mark} {100 * example.probability:.0f} %"
            axes.text(0.5, -0.04, text, va="top", ha="center", color=color, fontsize=8, transform=axes.transAxes)
    if title:
        figure.suptitle(plain(title, 90), x=0.02, ha="left", fontsize=12, fontweight="bold")
    save_figure(figure, path)
