"""Run a call that may never return, and stop waiting for it; know what the other processes are at."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import torch

MAX_WORKERS = 1024
TICK = 0.5  # seconds between two looks at whether a call is done
STANDSTILL = 5.0  # seconds between two looks above which the process was not working, but stopped

Result = TypeVar("Result")


class TimedOut(Exception):
    """The call did not return within its time."""


class Allowance:
    """Seconds that work may take, spent as time passes, but not while the whole process stands still.

    A scheduler suspends jobs, and people press Ctrl-Z: a video that was being read then is not to blame. Whoever works
    looks at it now and then; more than `STANDSTILL` seconds between two looks count as so many only.
    """

    def __init__(self, seconds: float) -> None:
        self.left = seconds
        self._before = time.monotonic()

    def is_spent(self) -> bool:
        now = time.monotonic()
        self.left -= min(now - self._before, STANDSTILL)
        self._before = now
        return self.left <= 0


def call_with_timeout(function: Callable[[], Result], seconds: float) -> Result:
    """``function()``, or `TimedOut` after ``seconds`` of an `Allowance`.

    For native code that hangs but lets other threads run. The hung thread cannot be ended; being a daemon it dies with
    the process and keeps nobody from exiting. Signals are no way out: their handlers run only between bytecodes.
    """
    outcome: list[Any] = []
    failure: list[BaseException] = []

    def target() -> None:
        try:
            outcome.append(function())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=target, name="stvideo-decode", daemon=True)
    thread.start()
    allowance = Allowance(seconds)
    while thread.is_alive():
        thread.join(min(max(allowance.left, 0.0), TICK))
        if allowance.is_spent() and thread.is_alive():
            raise TimedOut
    if failure:
        raise failure[0]
    return outcome[0]


class ReadingNow:
    """Which video each loader process is reading, and since when, in memory that all of them share.

    The parent names the file by it if a worker hangs or dies. Slot 0 is the parent itself, n + 1 is worker n.
    """

    def __init__(self) -> None:
        self._videos = torch.full((MAX_WORKERS,), -1, dtype=torch.int64).share_memory_()
        self._since = torch.zeros(MAX_WORKERS, dtype=torch.float64).share_memory_()

    def begin(self, slot: int, video: int) -> None:
        """Process ``slot`` turns to ``video``."""
        self._since[slot] = time.monotonic()  # one clock for all processes
        self._videos[slot] = video

    def end(self, slot: int) -> None:
        """Process ``slot`` reads no video any more."""
        self._videos[slot] = -1

    def videos(self) -> list[int]:
        """All that are being read."""
        return [video for video in self._videos.tolist() if video >= 0]

    def longest(self) -> float | None:
        """Seconds since the slowest of them was begun; None if none is being read."""
        busy = self._videos >= 0
        return time.monotonic() - float(self._since[busy].min()) if bool(busy.any()) else None
