"""Work on many files in processes that may hang or crash without taking the rest down.

    for job, outcome in run_jobs(inspect, paths, workers=8, timeout=60):
        if isinstance(outcome, Failure): ...

Every process has a pipe of its own, so whatever ends it, the job that it had is known. Pools of other libraries share
one pipe: of a process that is killed at the wrong moment they lose the job, or all others wait for its lock.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from itertools import islice
from multiprocessing import connection, resource_tracker
from typing import Any, NamedTuple

import torch

from stvideo.core.errors import StvideoError

GOODBYE = 10.0  # seconds that a process without a job may take to end
HAS_TIMERS = hasattr(signal, "setitimer")  # not on Windows, where nothing that hangs is noticed

Alive = Callable[..., None]
"""``alive()``: the job gets on. ``alive(seconds)``: from now on it may take that long before it gets on."""


class Failure(NamedTuple):
    """A job that gave no result: ``kind`` is ``"timeout"``, ``"crash"`` or ``"error"``."""

    kind: str
    reason: str


class _Worker(NamedTuple):
    process: Any
    pipe: Any


def run_jobs(
    function: Callable[[Any, Alive], Any], jobs: Iterable[Any], *, workers: int, timeout: float
) -> Generator[tuple[Any, Any], None, None]:
    """Call ``function(job, alive)`` for every job; yields (job, result or `Failure`) in the order of completion.

    Args:
        function: from the top level of a module; calls ``alive()`` now and then while it gets on.
        workers: processes, kept from job to job and replaced when they hang or crash.
        timeout: seconds that a job may go on without ``alive()`` before its process is ended.

    Raises:
        StvideoError: the processes cannot be started.
        KeyboardInterrupt: one of them got SIGTERM, as a scheduler sends it to all processes of a command.
    """
    waiting = iter(jobs)
    idle: list[_Worker] = []
    busy: dict[Any, tuple[_Worker, Any]] = {}  # by pipe
    try:
        while True:
            for job in islice(waiting, workers - len(busy)):
                worker = idle.pop() if idle and idle[-1].process.is_alive() else _start(function, timeout)
                busy[worker.pipe] = worker, job
                with suppress(OSError):  # it has just died, which reading from it will tell
                    worker.pipe.send(job)
            if not busy:
                return
            for pipe in connection.wait(list(busy)):
                worker, job = busy.pop(pipe)
                try:
                    outcome = worker.pipe.recv()
                    idle.append(worker)
                except (EOFError, OSError):
                    worker.process.join()
                    outcome = _why(worker.process.exitcode, timeout)
                yield job, outcome
    finally:
        for worker, _ in busy.values():
            worker.process.kill()
        for worker in idle:
            worker.pipe.close()  # so that it ends by itself and gives back what it took from the system
        for worker in [*idle, *(worker for worker, _ in busy.values())]:
            worker.process.join(GOODBYE)


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


def _why(code: int, timeout: float) -> Failure:
    if HAS_TIMERS and code == -signal.SIGALRM:
        return Failure("timeout", f"no progress in {timeout:g} s")
    if code == -signal.SIGTERM:
        raise KeyboardInterrupt
    if code < 0:
        return Failure("crash", f"the decoder crashed ({signal.Signals(-code).name})")
    return Failure("crash", f"the decoding process ended by itself (status {code})")


def _start(function: Callable[[Any, Alive], Any], timeout: float) -> _Worker:
    """Start a process, from one that has imported everything once and opened nothing, where the system has that."""
    methods = multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    context.set_forkserver_preload(["__main__", function.__module__])
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, function, timeout), daemon=True)
    # Ctrl-C reaches every process of a terminal, but only this one acts on it: the others are started with it blocked.
    resource_tracker.ensure_running()  # starting it would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT]) if HAS_TIMERS else None
    try:
        process.start()
    finally:
        if before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()  # so that reading from ours ends when the process does
    try:
        ours.recv()
    except (EOFError, OSError):
        raise StvideoError("worker processes cannot be started: is there enough memory?") from None
    return _Worker(process, ours)


def _serve(pipe: Any, function: Callable[[Any, Alive], Any], timeout: float) -> None:
    """Work until the other end of the pipe is closed; the system ends what hangs by SIGALRM, whatever it hangs in."""

    def alive(seconds: float = timeout) -> None:
        if HAS_TIMERS:
            signal.setitimer(signal.ITIMER_REAL, seconds)

    torch.set_num_threads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders write to stderr on their own, over the progress bar
    with suppress(EOFError, OSError):
        pipe.send("ready")
        while True:
            job = pipe.recv()
            alive()
            try:
                outcome = function(job, alive)
            except Exception as error:
                outcome = Failure("error", " ".join(f"{type(error).__name__}: {error}".split())[:300])
            alive(0)
            pipe.send(outcome)
