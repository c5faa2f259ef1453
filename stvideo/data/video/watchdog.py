"""Give up on calls that never return, and know which video every loader process is reading."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

import torch

MAX_WORKERS = 1024

Result = TypeVar("Result")


class TimedOut(Exception):
    """The call did not return within its time."""


def call_with_timeout(function: Callable[[], Result], seconds: float) -> Result:
    """Return ``function()``, or raise `TimedOut` after ``seconds``.

    For native code that hangs but lets other threads run. The hung thread cannot be ended; being a daemon it dies with
    the process and keeps nobody from exiting. Signals are no way out: their handlers run only between bytecodes.
    """
    outcome: Future[Result] = Future()

    def target() -> None:
        try:
            outcome.set_result(function())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=target, name="stvideo-decode", daemon=True).start()
    wait([outcome], seconds)
    if not outcome.done():
        raise TimedOut
    return outcome.result()


class ReadingNow:
    """Note which video each loader process is reading, and since when, in memory that all of them share.

    The parent names the file by it if a worker hangs or dies. Slot 0 is the parent itself, n + 1 is worker n.
    """

    def __init__(self) -> None:
        self._videos = torch.full((MAX_WORKERS,), -1, dtype=torch.int64).share_memory_()
        self._since = torch.zeros(MAX_WORKERS, dtype=torch.float64).share_memory_()

    def begin(self, slot: int, video: int) -> None:
        """Note that process ``slot`` turns to ``video``."""
        self._since[slot] = time.monotonic()  # one clock for all processes
        self._videos[slot] = video

    def end(self, slot: int) -> None:
        """Note that process ``slot`` reads no video any more."""
        self._videos[slot] = -1

    def videos(self) -> list[int]:
        """List all that are being read."""
        return [video for video in self._videos.tolist() if video >= 0]

    def longest(self) -> float | None:
        """Seconds since the slowest of them was begun; None if none is being read."""
        busy = self._videos >= 0
        return time.monotonic() - float(self._since[busy].min()) if bool(busy.any()) else None
