"""The picture of a benchmark: what was measured beside what the arithmetic promises. From plain numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from stvideo.drawing.curves import COLORS, MARKERS
from stvideo.drawing.plots import new_figure, save_figure
from stvideo.drawing.text import plain

Row = Mapping[str, Any]
MOST_OF_SLOWEST = 1.6  # where the axis of times ends at the latest: single slow calls may leave the picture
NUMBERED_BARS = 24  # more bars are drawn without their numbers


def plot_speeds(path: Path, rows: Sequence[Row], title: str = "") -> None:
    """Speed-ups of every model at every batch size as bars with their theory, and the time of a clip beside them.

    Args:
        path: a PNG.
        rows: of a comparison. Each has ``model``, ``form`` (None where there is one only), ``batch``, ``seconds`` per
            call or None, ``speedup`` ({median, low, high} or None), ``theory``, ``in_all`` (used where a row has no
            speed-up, for the forms of the first model) and, at batch 1, ``p50`` and ``p99`` in seconds.
    """
    names = list(dict.fromkeys(_name(row) for row in rows))
    colors = {name: COLORS[number % len(COLORS)] for number, name in enumerate(names)}
    figure = new_figure(13, 5.2 + 0.21 * len(names))
    left, right = figure.subplots(1, 2, width_ratios=[1.5, 1])
    _draw_speedups(left, rows, colors)
    _draw_times(right, rows, colors)
    handles = [
        Line2D([], [], color=colors[name], marker=MARKERS[number % len(MARKERS)], linewidth=3, label=name)
        for number, name in enumerate(names)
    ]
    handles.append(Line2D([], [], color="#1c1e24", linewidth=2.5, label="theory: ratio of multiply-accumulates"))
    figure.legend(
        handles=handles,
        loc="outside lower left",
        frameon=False,
        fontsize=9,
        ncols=1 + (len(names) > 6 and max(map(len, names)) < 70),
    )
    if title:
        figure.suptitle(plain(title, 100), x=0.01, ha="left", fontsize=12, fontweight="bold")
    save_figure(figure, path)


def _draw_speedups(axes: Axes, rows: Sequence[Row], colors: Mapping[str, str]) -> None:
    """Bars with the range of the rounds, a dark line at the theory of each, and a thin one at 1."""
    bars = [row for row in rows if _speedup(row)]
    names = list(dict.fromkeys(_name(row) for row in bars))
    batches = list(dict.fromkeys(row["batch"] for row in rows))
    width = 0.8 / max(len(names), 1)
    for row in bars:
        value = _speedup(row)
        x = batches.index(row["batch"]) + (names.index(_name(row)) - (len(names) - 1) / 2) * width
        median = value["median"]
        spread = [[median - value["low"]], [value["high"] - median]]
        axes.bar(x, median, 0.86 * width, color=colors[_name(row)], yerr=spread, ecolor="#868e96", capsize=2)
        if row.get("theory"):
            axes.plot([x - width / 2, x + width / 2], [row["theory"]] * 2, color="#1c1e24", linewidth=2.5)
        if len(bars) <= NUMBERED_BARS:
            axes.text(
                x, 0.04 * median, f"{median:.2f}", ha="center", va="bottom", color="white", fontsize=8, rotation=90
            )
    axes.axhline(1, color="#868e96", linewidth=0.8)
    axes.set_xticks(range(len(batches)), [f"batch {batch}" for batch in batches])
    axes.set_xlim(-0.5, len(batches) - 0.5)
    axes.set_ylabel("times as fast")
    forms = "; bars without theory: over the first row" if any(not row.get("speedup") for row in bars) else ""
    axes.set_title(f"speed-up, median of rounds with lowest and highest{forms}", loc="left", fontsize=10)
    _tidy(axes)


def _draw_times(axes: Axes, rows: Sequence[Row], colors: Mapping[str, str]) -> None:
    """Milliseconds per clip over the batch size; at batch 1 with the span from p50 to p99 of single calls."""
    names = list(colors)
    batches = sorted({row["batch"] for row in rows})
    for number, name in enumerate(names):
        own = sorted((row for row in rows if _name(row) == name and row["seconds"]), key=lambda row: row["batch"])
        aside = 0.03 * (number - (len(names) - 1) / 2)  # so that the spans do not lie on one another
        x = [batches.index(row["batch"]) + aside for row in own]
        y = [1000 * row["seconds"] / row["batch"] for row in own]
        axes.plot(x, y, color=colors[name], marker=MARKERS[number % len(MARKERS)], linewidth=1.8, markersize=6)
        for at, row in zip(x, own, strict=True):
            if row.get("p50") and row.get("p99"):
                axes.plot([at, at], [1000 * row["p50"], 1000 * row["p99"]], color=colors[name], linewidth=1)
    axes.set_xticks(range(len(batches)), [str(batch) for batch in batches])
    axes.set_xlabel("clips per call")
    axes.set_ylabel("milliseconds per clip")
    slowest = max((1000 * row["seconds"] / row["batch"] for row in rows if row["seconds"]), default=1)
    axes.set_ylim(0, min(axes.get_ylim()[1], MOST_OF_SLOWEST * slowest))
    axes.set_title("time of a clip; thin lines at 1: single calls, p50 to p99", loc="left", fontsize=10)
    _tidy(axes)


def _name(row: Row) -> str:
    name = plain(str(row["model"]), 76)
    return f"{name}, {row['form']}" if row.get("form") else name


def _speedup(row: Row) -> Any:
    return row.get("speedup") or row.get("in_all")


def _tidy(axes: Axes) -> None:
    axes.grid(axis="y", color="#e5e8ee", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
