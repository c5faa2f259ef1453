"""Paired statistics against slow textbook forms."""

import math

import numpy as np
import pytest

from stvideo.evaluation.paired import accuracy_interval, mcnemar, mean_interval, paired_difference


def answers(both, only_a, only_b, neither):
    a = np.array([True] * both + [True] * only_a + [False] * only_b + [False] * neither)
    b = np.array([True] * both + [False] * only_a + [True] * only_b + [False] * neither)
    order = np.random.default_rng(0).permutation(len(a))
    return a[order], b[order]


def test_difference_and_counts():
    a, b = answers(50, 12, 4, 34)
    result = paired_difference(a, b)
    assert (result.only_a, result.only_b, result.videos) == (12, 4, 100)
    assert result.difference == pytest.approx(100 * (a.mean() - b.mean()))
    back = paired_difference(b, a)
    assert back.difference == -result.difference and back.p_value == result.p_value


def test_the_interval_is_that_of_drawing_videos_one_by_one():
    a, b = answers(60, 20, 8, 32)
    generator = np.random.default_rng(3)
    slow = []
    for _ in range(4000):
        drawn = generator.integers(0, len(a), len(a))
        slow.append(100 * (a[drawn].mean() - b[drawn].mean()))
    result = paired_difference(a, b)
    assert [result.low, result.high] == pytest.approx(np.quantile(slow, [0.025, 0.975]), abs=0.9)


def test_with_several_seeds_seeds_and_videos_are_drawn_together():
    """The textbook form: draw seeds and videos, and average the answers where they cross."""
    generator = np.random.default_rng(5)
    skill = generator.normal(0, 0.08, (2, 4, 1))  # how far the runs of A and of B lie apart
    hard = generator.random((1, 1, 90))
    a, b = generator.random((2, 4, 90)) < 0.35 + 0.5 * hard + skill + [[[0.1]], [[0.0]]]
    slow = []
    for _ in range(4000):
        seeds, videos = generator.integers(0, 4, 4), generator.integers(0, 90, 90)
        slow.append(100 * (a[seeds][:, videos].mean() - b[seeds][:, videos].mean()))
    result = paired_difference(a, b)
    assert result.difference == pytest.approx(100 * (a.mean() - b.mean()))
    assert [result.low, result.high] == pytest.approx(np.quantile(slow, [0.025, 0.975]), abs=0.9)
    assert result.p_value is None and result.videos == 90
    assert (result.only_a, result.only_b) == ((a & ~b).sum(), (~a & b).sum())
    # Seeds that disagree widen the interval; one seed alone is the bootstrap over videos.
    assert result.high - result.low > 1.1 * np.subtract(*mean_interval(100.0 * (a.mean(0) - b.mean(0))[None])[::-1])
    assert paired_difference(a[:1], b[:1]) == paired_difference(a[0], b[0])


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(1)
    truth, covered = 6.0, 0
    for seed in range(300):
        draw = generator.random(400)
        a, b = draw < 0.16, (draw >= 0.16) & (draw < 0.26)  # A alone right on 16 %, B alone on 10 %
        result = paired_difference(a, b, seed)
        covered += result.low <= truth <= result.high
    assert 0.91 <= covered / 300 <= 0.985


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (1, 0), (5, 5), (9, 2), (30, 60)])
def test_mcnemar_is_the_binomial_test(only_a, only_b):
    total = only_a + only_b
    tail = sum(math.comb(total, k) for k in range(min(only_a, only_b) + 1)) / 2**total
    assert mcnemar(only_a, only_b) == pytest.approx(min(1.0, 2 * tail))


def test_mcnemar_of_a_whole_validation_set():
    assert 0 < mcnemar(2300, 2000) < 1e-5
    assert mcnemar(10_000, 10_000) == 1.0


def test_intervals_stay_inside_per_cent():
    assert accuracy_interval(50, 100) == pytest.approx((40.383, 59.617), abs=1e-3)  # Wilson's, by hand
    low, high = accuracy_interval(20, 20)
    assert 83 < low < 85 and high == 100.0
    assert accuracy_interval(0, 20)[0] == 0.0
