"""Pictures of evaluations: the counting is checked exactly, the drawing for what it must show."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stvideo.drawing.confusion import (
    ClassRow,
    Example,
    class_accuracy,
    confusion_matrix,
    confusions,
    plot_class_rows,
    plot_confusion,
    worst_class_rows,
    worst_classes,
)
from tests.properties import unhurried

LABELS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=60)


@unhurried
@given(LABELS)
def test_counting_equals_a_slow_count(pairs):
    truth, guess = (np.array([p[i] for p in pairs], np.int64) for i in (0, 1))
    matrix = confusion_matrix(truth, guess, 6)
    for a in range(6):
        for b in range(6):
            assert matrix[a, b] == sum(1 for p in pairs if p == (a, b))
    accuracy = class_accuracy(matrix)
    for k in range(6):
        own = [g for t, g in pairs if t == k]
        assert np.isnan(accuracy[k]) if not own else accuracy[k] == own.count(k) / len(own)
    order = worst_classes(matrix, 6)
    assert sorted(order) == sorted({t for t, _ in pairs})
    assert [accuracy[k] for k in order] == sorted(accuracy[k] for k in order)
    mistakes = confusions(matrix, 40)
    assert sum(n for *_, n in mistakes) == sum(t != g for t, g in pairs)
    assert [n for *_, n in mistakes] == sorted((n for *_, n in mistakes), reverse=True)


@pytest.mark.parametrize("count", [2, 12, 30, 100])
def test_confusion_picture_of_any_number_of_classes(tmp_path, count):
    generator = np.random.default_rng(0)
    matrix = generator.integers(0, 9, (count, count))
    plot_confusion(tmp_path / "c.png", matrix, [f"class $ {k}" for k in range(count)], "run_1 $")
    assert Image.open(tmp_path / "c.png").width > 500
    assert [p.name for p in tmp_path.iterdir()] == ["c.png"]


def test_confusion_picture_without_any_video(tmp_path):
    plot_confusion(tmp_path / "c.png", np.zeros((2, 2), np.int64), ["a", "b"])
    assert (tmp_path / "c.png").exists()


def test_worst_rows_take_confident_mistakes_first_and_leave_out_faultless_classes():
    truth = np.array([0, 0, 0, 1, 1, 2])
    scores = np.array(
        [[0.9, 0.1, 0.0], [0.3, 0.7, 0.0], [0.1, 0.0, 0.9], [0.0, 1.0, 0.0], [0.4, 0.3, 0.3], [0.0, 0.0, 1.0]],
        np.float32,
    )
    frames = {v: np.full((4, 4, 3), v, np.uint8) for v in range(6) if v != 1}
    rows = worst_class_rows(scores, truth, ["a", "b", "c"], frames.get)
    assert [(r.name, r.right, r.total) for r in rows] == [("a", 1, 3), ("b", 1, 2)]
    assert [(int(e.frame[0, 0, 0]), e.predicted, e.right) for e in rows[0].examples] == [
        (2, "c", False),
        (0, "a", True),
    ]


def test_class_rows_sheet(tmp_path):
    frame = np.full((30, 40, 3), 90, np.uint8)
    rows = [
        ClassRow(
            "a long $ class name " * 5, 1, 3, [Example(frame, "b" * 90, 0.5, False), Example(frame, "a", 0.9, True)]
        ),
        ClassRow("unreadable", 0, 1, []),
    ]
    plot_class_rows(tmp_path / "s.png", rows, "worst")
    sheet = np.asarray(Image.open(tmp_path / "s.png").convert("RGB"))
    colors = {tuple(c) for c in sheet.reshape(-1, 3)}
    assert {(43, 138, 62), (201, 42, 42), (90, 90, 90)} <= colors
    assert (sheet[:, -5:] == 255).all() and (sheet[-5:] == 255).all() and (sheet[:, :5] == 255).all()
    plot_class_rows(tmp_path / "s.png", rows[1:])
    assert [p.name for p in tmp_path.iterdir()] == ["s.png"]
