"""Lines through measurements: every curve shows, the control apart from the methods."""

import numpy as np
from PIL import Image

from stvideo.drawing.curves import Curve, Point, plot_curve_panels, plot_curves

CURVES = [
    Curve("dense", [Point(195.8, 78.0)]),
    Curve("evit", [Point(100.0, 75.0, "0.5", (74.2, 75.7)), Point(131.0, 77.0, "0.7")]),
    Curve("random", [Point(131.0, 73.0, "0.7")], control=True),
]


def colors_of(path):
    return {tuple(c) for c in np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)}


def test_curves(tmp_path):
    plot_curves(tmp_path / "c.png", CURVES, title="x_y $")
    plot_curves(tmp_path / "none.png", [])
    # every curve is there, the control in gray
    assert {(59, 111, 212), (217, 72, 15), (134, 142, 150)} <= colors_of(tmp_path / "c.png")


def test_panels_stand_side_by_side(tmp_path):
    plot_curves(tmp_path / "one.png", CURVES)
    plot_curve_panels(tmp_path / "two.png", [("GMACs", CURVES), ("clips/s", CURVES)], title="480 videos")
    one, two = Image.open(tmp_path / "one.png"), Image.open(tmp_path / "two.png")
    assert two.height == one.height and two.width > 1.6 * one.width
    left = np.asarray(two.convert("RGB"))[:, : two.width // 2].reshape(-1, 3)
    assert (217, 72, 15) in {tuple(c) for c in left}
