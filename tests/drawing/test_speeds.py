"""The picture of a benchmark: drawn from plain rows, with failures and long names in them."""

import numpy as np
import pytest
from PIL import Image

from stvideo.drawing.speeds import plot_speeds


def make_row(model, batch, seconds, speedup=None, theory=None, form=None, **more):
    spread = speedup and {"median": speedup, "low": 0.9 * speedup, "high": 1.1 * speedup}
    return {
        "model": model,
        "form": form,
        "batch": batch,
        "seconds": seconds,
        "speedup": spread,
        "theory": theory,
        **more,
    }


@pytest.mark.parametrize("models", [1, 3, 9])
def test_bars_stand_for_speedups(tmp_path, models):
    rows = []
    for batch in (1, 8):
        rows.append(make_row("dense " * 30, batch, 0.1 * batch, p50=0.1, p99=0.3))
        rows += [make_row(f"+m{i}", batch, 0.05 * batch, 1.8, 2.0, form="onnx") for i in range(models)]
    rows.append(make_row("+m0", 32, None, form="onnx", failure="out of memory"))
    plot_speeds(tmp_path / "speeds.png", rows, "a title")
    picture = np.asarray(Image.open(tmp_path / "speeds.png").convert("RGB")).astype(int)
    assert picture.shape[1] > 1000
    orange = (abs(picture - (0xD9, 0x48, 0x0F)) < 8).all(-1).sum()  # the second name's colour fills bars
    assert orange > 4000


def test_a_lone_model_has_times_only(tmp_path):
    plot_speeds(tmp_path / "speeds.png", [make_row("dense", 1, 0.1)])
    assert (tmp_path / "speeds.png").stat().st_size > 10_000
