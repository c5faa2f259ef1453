"""Plots of accuracy against cost: lines through measurements, from plain numbers."""

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
    """One measurement of a curve.

    Attributes:
        costs: one for each panel; None where it was not measured.
        accuracy: per cent.
        label: text beside the mark.
        interval: confidence interval of the accuracy.
    """

    costs: tuple[float | None, ...]
    accuracy: float
    label: str = ""
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Curve:
    """Measurements that belong together, such as one method at several keep rates, in the order of the method.

    A curve of one point (such as the dense model) is a lone mark; ``control`` (random dropping at equal cost) is drawn
    gray and dashed.
    """

    name: str
    points: list[Point] = field(default_factory=list)
    control: bool = False


def plot_curves(
    path: Path,
    curves: Sequence[Curve],
    costs: Sequence[str] = ("GMACs per view",),
    accuracy: str = "top-1 (%)",
    title: str = "",
    front: Sequence[bool] = (),
) -> None:
    """Draw accuracy against one or several costs side by side, a line per curve, a label at every point.

    Args:
        path: of the PNG.
        curves: the measurements.
        costs: labels of the x axes, as many as each point has costs.
        accuracy: label of the y axis.
        title: over the first panel.
        front: for each panel whether more is better there (clips/s); where given, the Pareto front is drawn: a line
            along the points that no other beats in both.
    """
    figure = new_figure(1.9 + 6.3 * len(costs), 5.4)
    panels: Sequence[Axes] = figure.subplots(1, len(costs), sharey=True, squeeze=False)[0]
    for panel, (axes, cost) in enumerate(zip(panels, costs, strict=True)):
        if front:
            points = [point for curve in curves for point in curve.points]
            _draw_front(axes, [(p.costs[panel], p.accuracy) for p in points], more_is_better=front[panel])
        for number, curve in enumerate(curves):
            _draw(axes, curve, panel, CONTROL_COLOR if curve.control else COLORS[number % len(COLORS)], number)
        axes.set_xlabel(plain(cost, 60))
        axes.margins(0.13, 0.12)
        axes.grid(color="#e5e8ee", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel(plain(accuracy, 60))
    if title:
        panels[0].set_title(plain(title, 110), loc="left", fontsize=11)
    if curves:
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=min(len(names), 3), frameon=False)
    save_figure(figure, path)


def pareto_front(
    points: Sequence[tuple[float | None, float]], more_is_better: bool = False
) -> list[tuple[float, float]]:
    """List the (cost, accuracy) that no other point beats in both, by rising cost (or falling speed)."""
    known = [(cost, accuracy) for cost, accuracy in points if cost is not None]
    front: list[tuple[float, float]] = []
    for cost, accuracy in sorted(known, key=lambda point: (-point[0] if more_is_better else point[0], -point[1])):
        if not front or accuracy > front[-1][1]:
            front.append((cost, accuracy))
    return front


def _draw_front(axes: Axes, points: Sequence[tuple[float | None, float]], more_is_better: bool) -> None:
    front = pareto_front(points, more_is_better)
    x, y = [cost for cost, _ in front], [accuracy for _, accuracy in front]
    axes.plot(x, y, color="#adb5bd", linewidth=1.4, linestyle=":", zorder=0.5, label="Pareto front")


def _draw(axes: Axes, curve: Curve, panel: int, color: str, number: int) -> None:
    points = [(cost, point) for point in curve.points if (cost := point.costs[panel]) is not None]
    axes.plot(
        [cost for cost, _ in points],
        [point.accuracy for _, point in points],
        "--" if curve.control else "-",
        marker=MARKERS[number % len(MARKERS)],
        color=color,
        label=plain(curve.name, 60),
        linewidth=2,
        markersize=7,
    )
    for cost, point in points:
        if point.interval is not None:
            axes.vlines(cost, *point.interval, color=color, linewidth=1.2, alpha=0.45, zorder=1.0)
        if point.label:
            axes.annotate(
                plain(point.label, 24),
                (cost, point.accuracy),
                (0, -16 if curve.control else 9),
                textcoords="offset points",
                fontsize=9,
                color=color,
                ha="center",
                zorder=1.5,  # over the intervals, under the marks
                bbox=dict(boxstyle="round,pad=0.1", facecolor="white", edgecolor="none"),
            )
