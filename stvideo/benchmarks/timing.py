"""Timing side by side: contestants take turns in every round, so that a slow moment of the machine hits all of them.

A speed-up is the median, over rounds, of the ratio of two times measured in the same round.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from stvideo.core.memory import is_out_of_memory

MOST_WARM_UPS = 100


@dataclass
class Contestant:
    """Something to time.

    Attributes:
        name: for the tables.
        run: does the work once.
        min_seconds: within a round, short work is repeated for about this long.
    """

    name: str
    run: Callable[[], Any]
    min_seconds: float = 0.2


@dataclass
class Timing:
    """What a contestant needed.

    Attributes:
        rounds: seconds per call, one mean per round.
        calls: seconds of every single call, where calls were timed one by one.
        failure: why there is nothing, e.g. memory ran out.
    """

    rounds: list[float] = field(default_factory=list)
    calls: list[float] = field(default_factory=list)
    failure: str | None = None

    @property
    def median(self) -> float | None:
        """Seconds per call; None if it failed."""
        return statistics.median(self.rounds) if self.rounds else None

    def percentile(self, share: float) -> float | None:
        """The time that ``share`` (0 to 1) of the single calls stayed within."""
        return percentile(self.calls, share) if self.calls else None


def fastest(timings: Sequence[Timing]) -> Timing:
    """The one of the smallest median; the first if all failed."""
    return min(timings, key=lambda timing: math.inf if timing.median is None else timing.median)


@dataclass
class Ratio:
    """Median of per-round ratios and how far single rounds lay apart."""

    median: float
    low: float
    high: float


def race(
    contestants: Sequence[Contestant],
    *,
    rounds: int,
    device: torch.device,
    each_call: bool = False,
    on_round: Callable[[], None] = lambda: None,
) -> list[Timing]:
    """Time every contestant once per round, in an order that rotates.

    Python's garbage collector runs between the rounds and rests in them.

    Args:
        contestants: what to time; first each is called without counting, see `_warm_up`.
        rounds: how often.
        device: whose queue is waited for.
        each_call: wait after every single call and keep its time (latency); else the queue stays full.
        on_round: called after every round, for a progress bar.

    Returns:
        One `Timing` per contestant. One that ran out of memory has no times, and says so.
    """
    timings = [Timing() for _ in contestants]
    repeats = []
    for contestant, timing in zip(contestants, timings, strict=True):
        try:
            once = _warm_up(contestant, device)
            repeats.append(max(1, math.ceil(contestant.min_seconds / max(once, 1e-9))))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            timing.failure = "out of memory"
            repeats.append(0)
            if device.type == "cuda":
                torch.cuda.empty_cache()  # what it had taken is wanted by the others
    alive = [i for i, timing in enumerate(timings) if timing.failure is None]
    for number in range(rounds):
        gc.collect()
        shift = number % max(len(alive), 1)
        with _without_garbage_collection():
            for i in alive[shift:] + alive[:shift]:
                calls = _timed(contestants[i].run, repeats[i], device, each_call)
                timings[i].rounds.append(sum(calls) / repeats[i])
                if each_call:
                    timings[i].calls += calls
        on_round()
    return timings


def ratio(base: Timing, other: Timing) -> Ratio | None:
    """How many times faster ``other`` is than ``base``; None if one of them has no times."""
    if not base.rounds or not other.rounds:
        return None
    ratios = [a / b for a, b in zip(base.rounds, other.rounds, strict=True)]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios))


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of ``values`` that at least ``share`` of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _warm_up(contestant: Contestant, device: torch.device) -> float:
    """Call it once for what happens only then (compilation, choice of kernels), then for as long as a round will take.

    A GPU raises its clock under load, and graphs are recorded in the second or third call.

    Returns:
        Seconds of the fastest call but the first.
    """
    _timed(contestant.run, 1, device, True)
    seconds = _timed(contestant.run, 1, device, True)
    while sum(seconds) < contestant.min_seconds and len(seconds) < MOST_WARM_UPS:
        seconds += _timed(contestant.run, 1, device, True)
    return min(seconds)


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _timed(run: Callable[[], Any], repeats: int, device: torch.device, each_call: bool) -> list[float]:
    """Seconds of every call, or of all ``repeats`` calls together as the only entry."""
    seconds = []
    synchronize(device)
    begin = time.perf_counter()
    for _ in range(repeats):
        run()
        if each_call:
            synchronize(device)
            end = time.perf_counter()
            seconds.append(end - begin)
            begin = end
    if not each_call:
        synchronize(device)
        seconds.append(time.perf_counter() - begin)
    return seconds
