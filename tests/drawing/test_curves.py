"""Lines through measurements: every curve shows, the control apart from the methods, the front as it should be."""

import numpy as np
from PIL import Image

from stvideo.drawing.curves import Curve, Point, pareto_front, plot_curves

CURVES = [
    Curve("dense", [Point((195.8, 40.0), 78.0)]),
    Curve("evit", [Point((100.0, 80.0), 75.0, "0.5", (74.2, 75.7)), Point((131.0, None), 77.0, "0.7")]),
    Curve("random", [Point((131.0, 60.0), 73.0, "0.7")], control=True),
]


def colors_of(path):
    return {tuple(c) for c in np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)}


def test_curves_and_panels(tmp_path):
    plot_curves(tmp_path / "one.png", CURVES, title="x_y $")
    plot_curves(tmp_path / "two.png", CURVES, ("GMACs", "clips/s"), title="480 videos")
    plot_curves(tmp_path / "none.png", [])
    # every curve is there, the control in gray
    assert {(59, 111, 212), (217, 72, 15), (134, 142, 150)} <= colors_of(tmp_path / "one.png")
    one, two = Image.open(tmp_path / "one.png"), Image.open(tmp_path / "two.png")
    assert two.height == one.height and two.width > 1.6 * one.width
    left = np.asarray(two.convert("RGB"))[:, : two.width // 2].reshape(-1, 3)
    assert (217, 72, 15) in {tuple(c) for c in left}


def test_the_pareto_front(tmp_path):
    points = [(100.0, 75.0), (131.0, 77.0), (131.0, 73.0), (195.8, 78.0), (150.0, 76.0), (None, 99.0)]
    assert pareto_front(points) == [(100.0, 75.0), (131.0, 77.0), (195.8, 78.0)]
    speeds = [(10.0, 75.0), (8.0, 77.0), (8.0, 73.0), (5.0, 78.0), (6.0, 76.0)]
    assert pareto_front(speeds, more_is_better=True) == [(10.0, 75.0), (8.0, 77.0), (5.0, 78.0)]
    assert pareto_front([]) == []
    plot_curves(tmp_path / "front.png", CURVES, ("GMACs", "clips/s"), front=(False, True))
    assert (173, 181, 189) in colors_of(tmp_path / "front.png")
