"""Run a call that may never return, and stop waiting for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")


class TimedOut(Exception):
    """The call did not return within its time."""


def call_with_timeout(function: Callable[[], Result], seconds: float) -> Result:
    """``function()``, or `TimedOut` after ``seconds``.

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
    thread.join(seconds)
    if thread.is_alive():
        raise TimedOut
    if failure:
        raise failure[0]
    return outcome[0]
