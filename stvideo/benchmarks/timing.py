"""Timing side by side: calls take turns in every round, so that a slow moment of the machine hits all of them.

A speed-up is the median, over rounds, of the ratio of two times measured in the same round. `torch.utils.benchmark`
has no such rounds: it measures one call to the end before the next one, with two calls that do not count each time.
"""

from __future__ import annotations

import gc
import math
import statistics
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch

from stvideo.benchmarks.steps import clock, forward_step, random_clip, training_step
from stvideo.core.out_of_memory import is_out_of_memory
from stvideo.models.base import Backbone

K = TypeVar("K", bound=Hashable)
MOST_WARM_UPS = 100


@dataclass
class Timing:
    """Seconds that a call took.

    Attributes:
        rounds: seconds per call, one mean per round.
        calls: seconds of every single call, where calls were timed one by one.
        failure: why there are no times, e.g. memory ran out.
    """

    rounds: list[float] = field(default_factory=list)
    calls: list[float] = field(default_factory=list)
    failure: str | None = None

    @property
    def median(self) -> float | None:
        """Seconds per call, the median over the rounds; None if it failed."""
        return statistics.median(self.rounds) if self.rounds else None

    def percentile(self, share: float) -> float | None:
        """Return the time that ``share`` (0 to 1) of the single calls did not exceed; None without single times."""
        return float(np.quantile(self.calls, share, method="inverted_cdf")) if self.calls else None


@dataclass
class Ratio:
    """Median of per-round ratios, with the lowest and the highest round."""

    median: float
    low: float
    high: float


def ratio(base: Timing, other: Timing) -> Ratio | None:
    """Compute how many times faster ``other`` is than ``base``; None if one of them has no times."""
    if not base.rounds or not other.rounds:
        return None
    ratios = [a / b for a, b in zip(base.rounds, other.rounds, strict=True)]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios))


def race(
    calls: Mapping[K, Callable[[], Any]],
    *,
    rounds: int,
    min_seconds: float | Mapping[K, float] = 0.2,
    each_call: bool = False,
    on_round: Callable[[], Any] = lambda: None,
) -> dict[K, Timing]:
    """Time every call once per round, in an order that rotates.

    Python's garbage collector runs between the rounds and rests in them. Work queued on the current GPU is waited for.

    Args:
        calls: functions without arguments, by any key; first each is warmed up, see `_warm_up`.
        rounds: how often.
        min_seconds: within a round, short work is repeated for about this long; one number, or one for each key.
        each_call: wait after every single call and keep its time (latency); else the queue stays full.
        on_round: called after every round, for a progress bar.

    Returns:
        A `Timing` for every key. One that ran out of memory has no times, and says so.
    """
    wanted = min_seconds if isinstance(min_seconds, Mapping) else dict.fromkeys(calls, min_seconds)
    timings = {key: Timing() for key in calls}
    repeats: dict[K, int] = {}
    for key, call in calls.items():
        try:
            repeats[key] = max(1, math.ceil(wanted[key] / max(_warm_up(call, wanted[key]), 1e-9)))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            timings[key].failure = "out of memory"
            torch.cuda.empty_cache()  # so that the others can have what it had taken
    order = list(repeats)
    was_enabled = gc.isenabled()
    for _ in range(rounds):
        gc.collect()
        gc.disable()
        try:
            for key in order:
                seconds = _timed(calls[key], repeats[key], each_call)
                timings[key].rounds.append(sum(seconds) / repeats[key])
                timings[key].calls += seconds if each_call else []
        finally:
            if was_enabled:
                gc.enable()
        order = order[1:] + order[:1]
        on_round()
    return timings


def race_models(
    models: Mapping[K, Backbone],
    *,
    batch_size: int,
    rounds: int = 12,
    device: torch.device | str = "cpu",
    precision: str = "fp32",
    training: bool = False,
    min_seconds: float = 0.2,
) -> dict[K, Timing]:
    """Time a forward pass, or a training step, of several models in turns on random clips.

    Args:
        models: by any key, on ``device``. They are left in evaluation or training mode,
            their weights unchanged.
        batch_size: clips per call; clips/s are ``batch_size / timing.median``.
        rounds, min_seconds: see `race`.
        precision: ``fp32`` or ``bf16`` (automatic mixed precision).
        training: forward, cross-entropy, backward and AdamW instead of inference.
    """
    calls = {}
    for key, model in models.items():
        clip = random_clip((batch_size, *model.example_shape()[1:]), torch.device(device))
        step = training_step(model, model, precision) if training else forward_step(model, precision)
        calls[key] = partial(step, clip)
    return race(calls, rounds=rounds, min_seconds=min_seconds)


def _warm_up(call: Callable[[], Any], min_seconds: float) -> float:
    """Call it once for what happens only then (compilation, choice of kernels), then for as long as a round will take.

    A GPU raises its clock under load, and graphs are recorded in the second or third call.

    Returns:
        Seconds of the fastest call but the first.
    """
    call()
    seconds = _timed(call, 1, True)
    while sum(seconds) < min_seconds and len(seconds) < MOST_WARM_UPS:
        seconds += _timed(call, 1, True)
    return min(seconds)


def _timed(call: Callable[[], Any], repeats: int, each_call: bool) -> list[float]:
    """Seconds of every call, or of all ``repeats`` calls together as the only entry."""
    seconds, begin = [], clock()
    for _ in range(repeats):
        call()
        if each_call:
            end = clock()
            seconds.append(end - begin)
            begin = end
    return seconds or [clock() - begin]


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
