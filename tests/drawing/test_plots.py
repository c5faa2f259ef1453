"""Plots are written, and only under their name."""

import numpy as np
from PIL import Image

from stvideo.drawing.plots import plot_timeline
from stvideo.drawing.text import plain


def test_timeline_with_difficult_names(tmp_path):
    scores = np.random.default_rng(0).dirichlet(np.ones(4), size=3).astype(np.float32)
    names = ["$x_1$", "line\nbreak", "a" * 200, "日本"]
    plot_timeline(tmp_path / "t.png", "50 $ for $ this_\\.mp4", np.array([0.0, 1.0, 2.0]), 3.0, scores, names, 9)
    assert Image.open(tmp_path / "t.png").size[0] > 1000
    assert [p.name for p in tmp_path.iterdir()] == ["t.png"]


def test_a_single_window(tmp_path):
    plot_timeline(tmp_path / "t.png", "x", np.array([0.0]), 0.0, np.ones((1, 1), np.float32), ["only"])
    assert (tmp_path / "t.png").stat().st_size > 0


def test_plain_text_has_no_mathematics_and_no_line_breaks():
    assert plain("a$b$\n", 20) == r"a\$b\$ " and plain("abcdef", 4) == "abc…"
