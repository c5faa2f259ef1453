"""Limits on time: what hangs is given up on, what was merely suspended goes on."""

import threading
from types import SimpleNamespace

import pytest

from stvideo.data.video import watchdog
from stvideo.data.video.watchdog import STANDSTILL, Allowance, TimedOut, call_with_timeout


def test_results_and_errors_come_through():
    assert call_with_timeout(lambda: 3, 60.0) == 3
    with pytest.raises(KeyError, match="none"):
        call_with_timeout(lambda: {}["none"], 60.0)


def test_a_call_that_hangs_is_given_up_on():
    never = threading.Event()
    with pytest.raises(TimedOut):
        call_with_timeout(never.wait, 0.1)
    never.set()


def test_a_suspended_process_has_not_used_its_time(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(watchdog, "time", SimpleNamespace(monotonic=lambda: now[0]))
    allowance = Allowance(3 * STANDSTILL)
    for seconds, is_spent in ((1.0, False), (3600.0, False), (STANDSTILL, False), (STANDSTILL - 1.0, True)):
        now[0] += seconds
        assert allowance.is_spent() == is_spent


def test_a_call_outlives_a_suspension(monkeypatch):
    """The clock jumps by a day while the call works."""
    looks, jumped = iter([0.0]), threading.Event()

    def clock():
        now = next(looks, 86_400.0)
        if now:
            jumped.set()
        return now

    monkeypatch.setattr(watchdog, "time", SimpleNamespace(monotonic=clock))
    assert call_with_timeout(lambda: jumped.wait(300.0), 60.0)
