"""Pictures of evaluations: the counting is checked exactly, the drawing for what it must show."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stvideo.drawing.confusion import (
    class_accuracy,
    confusion_matrix,
    confusions,
    plot_confusion,
    plot_videos,
    telling_videos,
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


def test_confident_mistakes_come_first_and_faultless_classes_are_left_out():
    truth = np.array([0, 0, 0, 1, 1, 2])
    scores = np.array(
        [[0.9, 0.1, 0.0], [0.3, 0.7, 0.0], [0.1, 0.0, 0.9], [0.0, 1.0, 0.0], [0.4, 0.3, 0.3], [0.0, 0.0, 1.0]],
        np.float32,
    )
    assert telling_videos(scores, truth) == {0: [2, 1, 0], 1: [4, 3]}
    assert telling_videos(scores, truth, count=1, videos=2) == {0: [2, 1]}
    assert telling_videos(scores[[0, 3, 5]], truth[[0, 3, 5]]) == {}


def test_sheet_of_videos(tmp_path):
    frames = {0: np.full((30, 40, 3), 90, np.uint8), 1: np.full((40, 30, 3), 91, np.uint8)}
    scores, truth = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], np.float32), np.array([0, 0, 1])
    classes = ["a long $ class name " * 5, "b" * 90]
    plot_videos(tmp_path / "s.png", {1: [2], 0: [1, 0]}, frames, scores, truth, classes, "worst")
    sheet = np.asarray(Image.open(tmp_path / "s.png").convert("RGB"))
    colors = {tuple(c) for c in sheet.reshape(-1, 3)}
    assert {(43, 138, 62), (201, 42, 42), (90, 90, 90), (91, 91, 91)} <= colors
    assert (sheet[:, -5:] == 255).all() and (sheet[-5:] == 255).all() and (sheet[:, :5] == 255).all()
    plot_videos(tmp_path / "s.png", {1: [2]}, {}, scores, truth, classes)
    assert [p.name for p in tmp_path.iterdir()] == ["s.png"]
