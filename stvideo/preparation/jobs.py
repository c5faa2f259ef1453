"""Work on many files in processes that may hang or crash without taking the rest down.

for job, outcome in run_jobs(inspect, paths, workers=8, timeout=60):
    if isinstance(outcome, Failure): ...
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import resource_tracker
from typing import Any, NamedTuple

import torch
from pebble import ProcessExpired, ProcessPool

from stvideo.core.errors import StvideoError

HAS_TIMERS = hasattr(signal, "setitimer")  # not on Windows, where nothing that hangs is noticed

Alive = Callable[..., None]
"""``alive()``: the job gets on. ``alive(seconds)``: from now on it may take that long before it gets on."""


class Failure(NamedTuple):
    """A job that gave no result: ``kind`` is ``"timeout"``, ``"crash"`` or ``"error"``."""

    kind: str
    reason: str


def run_jobs(
    function: Callable[[Any, Alive], Any], jobs: Iterable[Any], *, workers: int, timeout: float
) -> Generator[tuple[Any, Any], None, None]:
    """Call ``function(job, alive)`` for every job; yields (job, result or `Failure`) in the order of completion.

    Args:
        function: from the top level of a module; calls ``alive()`` now and then while it gets on.
        workers: processes, kept from job to job and replaced when they hang or crash.
        timeout: seconds that a job may go on without ``alive()`` before its process is ended.

    Raises:
        StvideoError: the processes cannot be started, or all of them were ended from outside.
    """
    waiting = iter(jobs)
    running: dict[Future[Any], Any] = {}
    with _pool(function.__module__, workers) as pool:
        while True:
            for job in islice(waiting, 2 * workers - len(running)):
                running[pool.schedule(_carry_out, (function, job, timeout))] = job
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), _outcome(future, timeout)


def count_workers(wanted: int, jobs: int) -> int:
    """Say how many processes to start: as many as wanted, 0 one per CPU core, but not more than there are jobs."""
    if wanted < 0:
        raise StvideoError(f"workers={wanted}: expected 0 (one process per CPU core) or more")
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(wanted or available, jobs))


def check_timeout(seconds: float) -> None:
    """Refuse a time limit that is none; raises `StvideoError`."""
    if not 0 < seconds <= 1e6:
        raise StvideoError(f"timeout={seconds:g}: expected seconds above 0")


def _outcome(future: Future[Any], timeout: float) -> Any:
    try:
        return future.result()
    except ProcessExpired as error:
        code = int(error.exitcode or 0)
        if HAS_TIMERS and code == -signal.SIGALRM:
            return Failure("timeout", f"no progress in {timeout:g} s")
        if code < 0:
            return Failure("crash", f"the decoder crashed ({signal.Signals(-code).name})")
        return Failure("crash", f"the decoding process ended by itself (status {code})")
    except BrokenProcessPool as error:
        raise StvideoError(f"the worker processes cannot be started, or were ended from outside ({error})") from None
    except Exception as error:
        return Failure("error", " ".join(f"{type(error).__name__}: {error}".split())[:300])


@contextmanager
def _pool(module: str, workers: int) -> Iterator[ProcessPool]:
    """Start processes that fork from one which has imported ``module`` and opened nothing, where the system has that.

    Ctrl-C reaches every process of a terminal, but only this one acts on it: the others are started with it blocked.
    """
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    context.set_forkserver_preload(["__main__", module])
    pool = ProcessPool(workers, initializer=_prepare, context=context)
    is_main = threading.current_thread() is threading.main_thread()
    try:
        with _interrupts_blocked():
            pool.schedule(int)  # anything: it starts the processes
        yield pool
    finally:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN) if is_main else None  # a second Ctrl-C has to wait
        pool.stop()
        pool.join()
        if is_main:
            signal.signal(signal.SIGINT, before)


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    if not HAS_TIMERS:
        yield
        return
    resource_tracker.ensure_running()  # starting it would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _prepare() -> None:
    torch.set_num_threads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders write to stderr on their own, over the progress bar


def _carry_out(function: Callable[[Any, Alive], Any], job: Any, timeout: float) -> Any:
    """Work in a process that the system ends by SIGALRM, whatever native code it hangs in, when its time is up."""

    def alive(seconds: float = timeout) -> None:
        if HAS_TIMERS:
            signal.setitimer(signal.ITIMER_REAL, seconds)

    alive()
    try:
        return function(job, alive)
    finally:
        alive(0)
