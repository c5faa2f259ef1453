"""From view scores to video accuracy, against the slow textbook way."""

import numpy as np
import pytest

from stvideo.core.errors import StvideoError
from stvideo.evaluation.metrics import Predictions, merge_views


def scores_of(videos, views, classes, seed=0):
    """Rows in a shuffled order, as they come from several processes."""
    generator = np.random.default_rng(seed)
    rows = [(v, w, v % classes) for v in range(videos) for w in range(views)]
    scores = generator.dirichlet(np.ones(classes), len(rows)).astype(np.float32)
    order = generator.permutation(len(rows))
    index, view, truth = np.array(rows)[order].T
    return index, view, truth, scores


def test_merge_averages_the_views_of_each_video():
    index, view, truth, scores = scores_of(videos=11, views=3, classes=6)
    merged = merge_views(index, view, truth, scores, num_videos=11, num_views=3)
    assert merged.index.tolist() == list(range(11))
    for video in range(11):
        rows = [i for i in range(len(index)) if index[i] == video]
        np.testing.assert_allclose(merged.scores[video], sum(scores[i] for i in rows) / 3, rtol=1e-6)
        assert merged.truth[video] == video % 6


def test_merge_of_logits_is_a_softmax_of_their_mean():
    index, view, truth, _ = scores_of(videos=9, views=3, classes=5)
    logits = np.random.default_rng(2).normal(0, 6, (27, 5)).astype(np.float32)
    merged = merge_views(index, view, truth, logits, num_videos=9, num_views=3, average="logits")
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    other = merge_views(index, view, truth, softmax, num_videos=9, num_views=3)
    for video in range(9):
        mean = logits[index == video].mean(axis=0)
        np.testing.assert_allclose(merged.scores[video], np.exp(mean) / np.exp(mean).sum(), rtol=1e-5)
    assert np.abs(merged.scores - other.scores).max() > 0.1


def test_merge_does_not_depend_on_the_order_of_the_rows():
    index, view, truth, scores = scores_of(videos=7, views=4, classes=3)
    order = np.random.default_rng(1).permutation(len(index))
    first = merge_views(index, view, truth, scores, num_videos=7, num_views=4)
    second = merge_views(index[order], view[order], truth[order], scores[order], num_videos=7, num_views=4)
    assert (first.scores == second.scores).all()


def test_a_view_that_came_twice_is_refused():
    index, view, truth, scores = scores_of(videos=5, views=2, classes=3)
    twice = [np.concatenate([part, part[:1]]) for part in (index, view, truth, scores)]
    with pytest.raises(StvideoError, match="1 views came twice"):
        merge_views(*twice, num_videos=5, num_views=2)


def test_a_missing_view_is_refused():
    parts = [part[1:] for part in scores_of(videos=5, views=2, classes=3)]
    with pytest.raises(StvideoError, match="9 of 5 x 2 views arrived"):
        merge_views(*parts, num_videos=5, num_views=2)


def test_a_view_of_another_video_in_place_of_a_missing_one_is_refused():
    index, view, truth, scores = scores_of(videos=4, views=2, classes=3)
    view[(index == 0) & (view == 1)] = 2
    index[(index == 0) & (view == 2)] = 1
    with pytest.raises(StvideoError, match="does not have 2 views"):
        merge_views(index, view, truth, scores, num_videos=4, num_views=2)


def test_accuracy_against_counting():
    scores = np.array([[0.1, 0.2, 0.7], [0.5, 0.4, 0.1], [0.3, 0.3, 0.4]], np.float32)
    predictions = Predictions(np.arange(3), np.array([2, 1, 0]), scores)
    assert predictions.accuracy(1) == pytest.approx(100 / 3)
    assert predictions.accuracy(2) == pytest.approx(100)  # the tie of the last row goes to the lower class
    assert predictions.metrics() == {"top1": pytest.approx(100 / 3), "top5": 100.0}


def test_top5_counts_the_five_best():
    generator = np.random.default_rng(0)
    scores = generator.dirichlet(np.ones(20), 200).astype(np.float32)
    truth = generator.integers(0, 20, 200)
    hits = sum(truth[i] in sorted(range(20), key=lambda k: -scores[i, k])[:5] for i in range(200))
    predictions = Predictions(np.arange(200), truth, scores)
    assert predictions.metrics()["top5"] == pytest.approx(hits / 2)


def test_scores_that_are_not_numbers_are_no_accuracy():
    scores = np.full((2, 3), np.nan, np.float32)
    with pytest.raises(StvideoError, match="diverged"):
        merge_views(np.arange(2), np.zeros(2, int), np.zeros(2, int), scores, num_videos=2, num_views=1)
