"""Learning rates by optimiser step."""

import math
from itertools import pairwise

import pytest

from stvideo.settings.schema import TrainConfig
from stvideo.training.optimizer import peak_learning_rate
from stvideo.training.schedule import learning_rate


def rates(config, steps_per_epoch=10):
    return [learning_rate(config, 1.0, step, steps_per_epoch) for step in range(config.epochs * steps_per_epoch)]


def test_warm_up_rises_evenly_and_cosine_ends_at_the_minimum():
    config = TrainConfig(epochs=10, warmup_epochs=2, min_lr=0.1)
    values = rates(config)
    steps = [b - a for a, b in pairwise(values[:20])]
    assert values[0] > 0
    assert max(steps) == pytest.approx(min(steps))
    assert values[20] == pytest.approx(1.0)
    assert values[60] == pytest.approx(0.1 + 0.9 * 0.5)
    assert values[-1] == pytest.approx(0.1 + 0.45 * (1 + math.cos(math.pi * 79 / 80)))
    assert all(a >= b for a, b in pairwise(values[20:]))


def test_steps_fall_at_their_epochs():
    values = rates(TrainConfig(epochs=15, schedule="step", step_epochs=[11, 14], step_gamma=0.1))
    assert values[109] == 1.0
    assert values[110] == pytest.approx(0.1)
    assert values[139] == pytest.approx(0.1)
    assert values[140] == pytest.approx(0.01)


def test_max_steps_does_not_bend_the_schedule():
    assert rates(TrainConfig(epochs=10)) == rates(TrainConfig(epochs=10, max_steps=5))


def test_learning_rate_scales_with_the_batch_only_where_asked():
    assert peak_learning_rate(TrainConfig(lr=0.1), 256) == 0.1
    assert peak_learning_rate(TrainConfig(lr=0.1, lr_batch_size=64), 256) == pytest.approx(0.4)


def test_the_minimum_scales_with_the_peak():
    # With a fixed minimum a small global batch would end above its own peak.
    config = TrainConfig(epochs=10, lr=2e-5, min_lr=2e-6, lr_batch_size=64)
    peak = peak_learning_rate(config, 4)
    values = [learning_rate(config, peak, step, 10) for step in range(101)]
    assert all(a > b for a, b in pairwise(values))
    assert values[0] == peak
    assert values[-1] == pytest.approx(peak / 10)
