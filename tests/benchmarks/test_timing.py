"""Turns, ratios and percentiles. Nothing here looks at how long anything took."""

import gc

import pytest
import torch

import stvideo
from stvideo.benchmarks import timing
from stvideo.benchmarks.timing import Timing, race, race_models, ratio
from stvideo.core.out_of_memory import is_out_of_memory

TINY = dict(embed_dim=32, depth=1, num_heads=2, img_size=32, num_classes=3)


def test_calls_take_turns():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "abc"}
    timings = race(calls, rounds=4, min_seconds=0.0, each_call=True)
    assert "".join(order) == "aabbcc" + "abc" + "bca" + "cab" + "abc"
    assert list(timings) == list("abc")
    assert all(len(one.rounds) == len(one.calls) == 4 for one in timings.values())


def test_the_collector_rests_within_rounds_only():
    states, done = [], []
    gc.enable()
    calls = {"a": lambda: states.append(gc.isenabled())}
    race(calls, rounds=2, min_seconds=0.0, on_round=lambda: done.append(gc.isenabled()))
    assert states[-2:] == [False, False]
    assert done == [True, True]


def test_short_work_is_warmed_up_and_repeated(monkeypatch):
    """By a clock that only the work itself moves on."""
    seconds = [0.0]

    def work():
        seconds[0] += 0.02

    monkeypatch.setattr(timing, "clock", lambda: seconds[0])
    race({"a": work}, rounds=0, min_seconds=0.05)
    assert seconds[0] == pytest.approx(0.02 * (1 + 3))  # the first call does not count, three take long enough
    found = race({"a": work, "b": work}, rounds=2, min_seconds={"a": 0.05, "b": 0.0}, each_call=True)
    assert {key: len(one.calls) for key, one in found.items()} == {"a": 6, "b": 2}
    assert found["a"].median == pytest.approx(0.02)


def test_one_that_runs_out_of_memory_drops_out():
    def too_large():
        raise torch.OutOfMemoryError("CUDA out of memory")

    timings = race({"a": too_large, "b": lambda: None}, rounds=2, min_seconds=0.0)
    assert timings["a"].failure == "out of memory"
    assert timings["a"].median is None
    assert len(timings["b"].rounds) == 2
    assert ratio(timings["a"], timings["b"]) is None
    with pytest.raises(RuntimeError, match="a bug"):
        race({"c": lambda: (_ for _ in ()).throw(RuntimeError("a bug"))}, rounds=1)


def test_the_cpu_allocator_running_out_is_recognised():
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(error.value)


def test_ratios_are_taken_within_rounds():
    base, other = Timing(rounds=[2.0, 4.0, 100.0]), Timing(rounds=[1.0, 1.0, 40.0])
    found = ratio(base, other)
    assert (found.median, found.low, found.high) == (2.5, 2.0, 4.0)


@pytest.mark.parametrize(("share", "value"), [(0.5, 5), (0.9, 9), (0.99, 10), (0.0, 1), (1.0, 10)])
def test_percentiles(share, value):
    assert Timing(calls=[10, 9, 8, 7, 6, 5, 4, 3, 2, 1]).percentile(share) == value
    assert Timing().percentile(share) is None


@pytest.mark.parametrize("training", [False, True])
def test_models_take_turns_and_stay_as_they_are(training):
    models = {
        "image": stvideo.create_model("deit_tiny_patch16_224", **TINY),
        "clip": stvideo.create_model("timesformer_tiny_patch16_224", num_frames=2, **TINY),
    }
    before = {name: {k: v.clone() for k, v in model.state_dict().items()} for name, model in models.items()}
    shapes = []
    for model in models.values():
        model.register_forward_pre_hook(lambda module, inputs: shapes.append(tuple(inputs[0].shape)))
    timings = race_models(models, batch_size=3, rounds=2, training=training, min_seconds=0.0)
    assert shapes == [(3, 3, 1, 32, 32)] * 2 + [(3, 3, 2, 32, 32)] * 2 + [shapes[0], shapes[2], shapes[2], shapes[0]]
    for name, model in models.items():
        assert model.training == training
        assert len(timings[name].rounds) == 2
        assert all(torch.equal(before[name][key], value) for key, value in model.state_dict().items())
