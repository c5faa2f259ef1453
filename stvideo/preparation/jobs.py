"""Work on many files in processes that may hang or crash without taking the rest down.

    for job, outcome in run_jobs(inspect, paths, workers=8, timeout=60):
        if isinstance(outcome, Failure): ...

A thread or a process pool would not do: native code that spins can only be ended by killing its process, and
`concurrent.futures` gives up all pending work when one worker dies.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any, NamedTuple

import torch

from stvideo.core.errors import StvideoError

TICK = 0.5  # seconds between two looks at the clock
START_LIMIT = 120.0  # seconds that a worker may take to start
GOODBYE = 10.0  # seconds that a dismissed worker may take to end
_REPORT_INTERVAL = 0.2  # seconds between two signs of life
_MAX_FAILED_STARTS = 3

Report = Callable[..., None]
"""``report()``: still alive. ``report(partial=x, limit=s)``: if nothing more comes within ``s`` seconds, or ever, ``x``
is what is known."""


class Failure(NamedTuple):
    """A job that gave no result: ``kind`` is ``"timeout"``, ``"crash"`` or ``"error"``."""

    kind: str
    reason: str
    partial: Any = None


@dataclass
class _Worker:
    process: Any
    pipe: connection.Connection
    ready: bool = False
    job: Any = None
    busy: bool = False
    quiet: float = 0.0  # seconds since the last sign of life
    limit: float = START_LIMIT
    partial: Any = None

    def start(self, job: Any, timeout: float) -> None:
        self.job, self.busy, self.quiet, self.limit, self.partial = job, True, 0.0, timeout, None
        with contextlib.suppress(OSError):  # it has just died, which reading from it will tell
            self.pipe.send(job)

    def dismiss(self) -> None:
        """Let it go if it waits for a job: then it gives back what it took from the system, semaphores for one."""
        if self.ready and not self.busy:
            self.pipe.close()

    def end(self) -> None:
        """Wait for it a little if it was dismissed, then kill it."""
        if self.pipe.closed:
            self.process.join(GOODBYE)
        self.kill()

    def kill(self) -> int | None:
        """End it at once; its exit code, negative for a signal."""
        self.process.kill()
        self.process.join(10)
        self.pipe.close()
        code: int | None = self.process.exitcode
        return code


def run_jobs(
    function: Callable[[Any, Report], Any], jobs: Iterable[Any], *, workers: int, timeout: float
) -> Generator[tuple[Any, Any], None, None]:
    """Call ``function(job, report)`` for every job; yields (job, result or `Failure`) in the order of completion.

    Args:
        function: from the top level of a module; calls ``report()`` now and then while it gets on.
        workers: processes, kept from job to job and replaced when they hang or crash.
        timeout: seconds that a job may go on without reporting before it is killed. Time during which this process
            itself stood still (Ctrl-Z, a suspended machine) does not count.

    Raises:
        StvideoError: workers cannot be started.
    """
    waiting = iter(jobs)
    context = _context(function)
    team: list[_Worker] = []
    failed_starts = 0
    exhausted = False
    before = time.monotonic()
    try:
        while True:
            for worker in team:
                if worker.ready and not worker.busy and not exhausted:
                    exhausted = not _start_next(worker, waiting, timeout)
            while not exhausted and len(team) < workers:
                team.append(_launch(context, function))
            if exhausted and not any(worker.busy for worker in team):
                return
            heard = set(connection.wait([worker.pipe for worker in team], TICK))
            now = time.monotonic()
            passed, before = min(now - before, 2 * TICK), now
            for worker in list(team):
                outcome = _listen(worker) if worker.pipe in heard else _check_clock(worker, passed)
                if outcome is None:
                    continue
                if isinstance(outcome, Failure) and outcome.kind != "error":
                    team.remove(worker)
                    if not worker.ready:
                        failed_starts += 1
                        if failed_starts >= _MAX_FAILED_STARTS:
                            raise StvideoError(f"worker processes cannot be started ({outcome.reason})")
                    if not worker.busy:
                        continue
                failed_starts = 0
                yield worker.job, outcome
    finally:
        for worker in team:
            worker.dismiss()
        for worker in team:
            worker.end()


def _start_next(worker: _Worker, waiting: Iterator[Any], timeout: float) -> bool:
    for job in waiting:
        worker.start(job, timeout)
        return True
    return False


def _listen(worker: _Worker) -> Any:
    """What came from a worker: a result, a `Failure`, or None if it only said how it gets on."""
    try:
        kind, value, limit = worker.pipe.recv()
    except (EOFError, OSError):
        return Failure("crash", _exit_words(worker.kill()), worker.partial)
    worker.quiet = 0.0
    if kind == "ready":
        worker.ready = True
    elif kind == "alive":
        worker.partial = value if value is not None else worker.partial
        worker.limit = limit if limit is not None else worker.limit
    else:
        worker.busy = False
        return value
    return None


def _check_clock(worker: _Worker, passed: float) -> Failure | None:
    if worker.ready and not worker.busy:
        return None
    worker.quiet += passed
    if worker.quiet <= worker.limit:
        return None
    worker.kill()
    return Failure("timeout", f"no progress in {worker.limit:g} s", worker.partial)


def _exit_words(code: int | None) -> str:
    if code is not None and code < 0:
        try:
            return f"the decoder crashed ({signal.Signals(-code).name})"
        except ValueError:
            return f"the decoder crashed (signal {-code})"
    return f"the decoding process ended by itself (status {code})"


def _context(function: Callable[..., Any]) -> Any:
    """Workers come from a process that has imported everything once and opened nothing, where the system has that."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", function.__module__])
    return context


def _launch(context: Any, function: Callable[..., Any]) -> _Worker:
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, function), daemon=True)
    process.start()
    theirs.close()  # so that reading from ours ends when the worker does
    return _Worker(process, ours)


def _serve(pipe: connection.Connection, function: Callable[[Any, Report], Any]) -> None:
    """A worker: jobs in, signs of life and results out, until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of the terminal; the parent acts on it
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    # Decoders write to stderr on their own, over the progress bar.
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    last = 0.0

    def report(partial: Any = None, limit: float | None = None) -> None:
        nonlocal last
        now = time.monotonic()
        if partial is not None or limit is not None or now - last > _REPORT_INTERVAL:
            last = now
            pipe.send(("alive", partial, limit))

    try:
        pipe.send(("ready", None, None))
        while True:
            job = pipe.recv()
            try:
                outcome = function(job, report)
            except Exception as error:
                outcome = Failure("error", " ".join(f"{type(error).__name__}: {error}".split())[:300])
            pipe.send(("done", outcome, None))
    except (EOFError, OSError):
        return


def _end_with_parent() -> None:
    """A worker that hangs in native code would outlive a parent that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
