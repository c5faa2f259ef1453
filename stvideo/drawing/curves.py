"""Accuracy against cost: lines through measurements, from plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.axes import Axes

from stvideo.drawing.plots import new_figure, save_figure
from stvideo.drawing.text import plain

COLORS = ("#3b6fd4", "#d9480f", "#2b8a3e", "#9c36b5", "#b08900", "#0b7285", "#c2255c", "#495057")
CONTROL_COLOR = "#868e96"
MARKERS = "osD^vPX*"


@dataclass(frozen=True)
class Point:
    """One measurement of a curve; ``interval`` is the confidence interval of its accuracy."""

    cost: float
    accuracy: float
    label: str = ""
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Curve:
    """Measurements that belong together, such as one method at several keep rates, in the order of the method."""

    name: str
    points: list[Point] = field(default_factory=list)
    control: bool = False  # drawn gray and dashed, e.g. random dropping at equal cost


def plot_curves(
    path: Path, curves: Sequence[Curve], cost: str = "GMACs per view", accuracy: str = "top-1 (%)", title: str = ""
) -> None:
    """Accuracy against cost, a line per curve, a label at every point.

    Args:
        curves: what was measured; a curve of one point (such as the dense model) is a lone mark.
        cost, accuracy: what the axes say.
    """
    plot_curve_panels(path, [(cost, curves)], accuracy, title)


def plot_curve_panels(
    path: Path, panels: Sequence[tuple[str, Sequence[Curve]]], accuracy: str = "top-1 (%)", title: str = ""
) -> None:
    """The same accuracies against several costs side by side, with one legend for all.

    Args:
        panels: what each x axis says, and the curves over it; the same curves in the same order in each.
        accuracy: what the y axis says.
    """
    figure = new_figure(1.9 + 6.3 * len(panels), 5.4)
    several: Sequence[Axes] = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (cost, curves) in zip(several, panels, strict=True):
        for number, curve in enumerate(curves):
            _draw(axes, curve, CONTROL_COLOR if curve.control else COLORS[number % len(COLORS)], number)
        axes.set_xlabel(plain(cost, 60))
        axes.margins(0.13, 0.12)
        axes.grid(color="#e5e8ee", linewidth=0.8)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    several[0].set_ylabel(plain(accuracy, 60))
    if title:
        several[0].set_title(plain(title, 110), loc="left", fontsize=11)
    if panels[0][1]:
        handles, names = several[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=min(len(names), 3), frameon=False)
    save_figure(figure, path)


def _draw(axes: Axes, curve: Curve, color: str, number: int) -> None:
    x, y = [point.cost for point in curve.points], [point.accuracy for point in curve.points]
    style = "--" if curve.control else "-"
    marker = MARKERS[number % len(MARKERS)]
    axes.plot(x, y, style, marker=marker, color=color, label=plain(curve.name, 60), linewidth=2, markersize=7)
    for point in curve.points:
        if point.interval is not None:
            low, high = point.interval
            axes.vlines(point.cost, low, high, color=color, linewidth=1.2, alpha=0.45, zorder=1.0)
        if point.label:
            below = curve.control
            axes.annotate(
                plain(point.label, 24),
                (point.cost, point.accuracy),
                (0, -16 if below else 9),
                textcoords="offset points",
                fontsize=9,
                color=color,
                ha="center",
                zorder=1.5,  # over the intervals, under the marks
                bbox=dict(boxstyle="round,pad=0.1", facecolor="white", edgecolor="none"),
            )
