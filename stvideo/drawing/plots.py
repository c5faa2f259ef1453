"""Plot plain numbers, with matplotlib and without a display."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from stvideo.core.files import replacing
from stvideo.drawing.text import plain

DPI = 130


def new_figure(width: float, height: float) -> Figure:
    """Make a figure of a size in inches that never touches matplotlib's global state."""
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
    return Figure(figsize=(width, height), dpi=DPI, layout=layout, facecolor="white")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG, to a temporary name first; raises StvideoError."""
    with warnings.catch_warnings(), replacing(path) as temporary:
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # names in scripts that the font lacks
        figure.savefig(temporary, format="png")


def plot_timeline(
    path: Path,
    title: str,
    starts: NDArray[np.float64],
    seconds: float,
    scores: NDArray[np.float32],
    classes: Sequence[str],
    top_k: int = 5,
) -> None:
    """Plot which class is probable when: one row per class, time to the right, the darker the more probable.

    Args:
        starts: (W,) second at which each window takes over.
        seconds: length of the video.
        scores: (W, K) class probabilities.
        top_k: how many classes get a row: those with the highest peaks, in the order in which they peak.
    """
    count = max(1, min(top_k, len(classes)))
    strongest = np.argsort(-scores.max(axis=0), kind="stable")[:count]
    rows = sorted(strongest, key=lambda k: int(scores[:, k].argmax()))
    borders = np.append(starts, max(seconds, starts[-1] + 1e-6))
    figure = new_figure(11, 1.5 + 0.42 * count)
    axes = figure.subplots()
    mesh = axes.pcolormesh(borders, np.arange(count + 1), scores[:, rows].T, cmap="Blues", vmin=0, vmax=1)
    best = scores.argmax(axis=1)
    for row, k in enumerate(rows):
        for window in np.flatnonzero(best == k):  # a line under the class that wins
            axes.plot(
                borders[window : window + 2], [row + 0.94] * 2, color="#d9480f", linewidth=3, solid_capstyle="butt"
            )
    axes.set_yticks(np.arange(count) + 0.5, [plain(classes[k], 40) for k in rows])
    axes.set_ylim(count, 0)
    axes.set_xlabel("seconds (orange: most probable class)")
    axes.set_title(plain(title, 90), loc="left", fontsize=12, fontweight="bold")
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    figure.colorbar(mesh, ax=axes, label="probability", pad=0.01)
    save_figure(figure, path)
