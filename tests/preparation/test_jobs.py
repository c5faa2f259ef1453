"""Work in processes that hang, crash or are killed: each such job is told, and the others are done."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from stvideo.core.errors import StvideoError
from stvideo.preparation.jobs import Failure, run_jobs


def work(job, alive):
    """What a job of these tests does: its first word says."""
    kind, *rest = job.split()
    if kind == "hang":
        while True:
            time.sleep(0.1)
    if kind == "slow":
        for _ in range(12):
            time.sleep(0.5)
            alive()
    if kind == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "term":
        os.kill(os.getpid(), signal.SIGTERM)
    if kind == "leave":
        os._exit(3)
    if kind == "wait":
        Path(rest[0]).write_text(str(os.getpid()))
        time.sleep(60)
    if kind == "error":
        raise KeyError("no\nsuch")
    return os.getpid()


class Unpicklable:
    """Raises where it is unpickled, as a module does that cannot be imported there."""

    def __reduce__(self):
        return os.strerror, ("no number",)


def outcomes(jobs, workers=2, timeout=60.0):
    return dict(run_jobs(work, jobs, workers=workers, timeout=timeout))


def test_every_job_has_an_outcome_whatever_happens_to_its_process():
    jobs = ["fine 1", "crash", "fine 2", "hang", "error", "leave", "slow", *(f"fine {n}" for n in range(3, 9))]
    found = outcomes(jobs, timeout=5.0)
    assert set(found) == set(jobs)
    assert found["crash"] == Failure("crash", "the decoder crashed (SIGSEGV)")
    assert found["hang"] == Failure("timeout", "no progress in 5 s")
    assert found["leave"] == Failure("crash", "the decoding process ended by itself (status 3)")
    assert found["error"] == Failure("error", "KeyError: 'no\\nsuch'")
    fine = [found[job] for job in jobs if job.startswith(("fine", "slow"))]  # slow: longer than the limit, but alive
    assert all(isinstance(process, int) and process != os.getpid() for process in fine)
    assert len(set(fine)) < len(fine)  # processes are kept from job to job


def test_a_worker_that_is_killed_is_replaced(tmp_path):
    note = tmp_path / "pid"

    def kill():
        while not note.exists() or not note.read_text():
            time.sleep(0.05)
        os.kill(int(note.read_text()), signal.SIGKILL)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    found = outcomes([f"wait {note}", "fine 1", "fine 2"], workers=1)
    thread.join()
    assert found[f"wait {note}"] == Failure("crash", "the decoder crashed (SIGKILL)")
    assert isinstance(found["fine 1"], int) and found["fine 1"] == found["fine 2"]


def test_a_worker_that_is_killed_between_two_jobs_costs_none(tmp_path):
    running = run_jobs(work, iter(["fine 1", "fine 2"]), workers=1, timeout=60.0)
    _, process = next(running)
    os.kill(process, signal.SIGKILL)
    time.sleep(1.0)
    assert isinstance(next(running)[1], int)


def test_a_schedulers_signal_to_all_processes_is_no_crash():
    with pytest.raises(KeyboardInterrupt):
        outcomes(["term", "fine"])


def test_processes_that_cannot_start_are_an_error():
    with pytest.raises(StvideoError, match="cannot be started"):
        next(run_jobs(Unpicklable(), ["fine"], workers=1, timeout=60.0))


def test_many_jobs_need_little_memory():
    """Jobs are taken from the iterator as they are worked on."""
    taken = []

    def jobs():
        for number in range(1000):
            taken.append(number)
            yield f"fine {number}"

    running = run_jobs(work, jobs(), workers=1, timeout=60.0)
    next(running)
    assert len(taken) < 10
    running.close()


def test_leaving_early_ends_the_workers(tmp_path):
    note = tmp_path / "pid"
    running = run_jobs(work, [f"wait {note}", "fine"], workers=2, timeout=60)
    next(running)  # the second job is done, so the first was handed out before
    while not note.exists() or not note.read_text():
        time.sleep(0.05)
    running.close()
    try:
        status = Path(f"/proc/{note.read_text()}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return
    assert status.rsplit(")", 1)[1].split()[0] == "Z"
