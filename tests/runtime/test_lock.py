"""One run per folder, and processes that do not outlive their launcher."""

import os
import re
import signal
import subprocess
import sys
import textwrap

import pytest
from accelerate import PartialState

from stvideo import StvideoError
from stvideo.runtime.lock import RunLock
from stvideo.runtime.signals import StopSignal, started_by_launcher
from tests.tiny_runs import (
    REPOSITORY,
    TINY,
    command,
    environment,
    free_port,
    read_log,
    run_here,
    start,
    wait_for,
)

ENDLESS = ["train.epochs=100000", "train.eval_every_epochs=100000"]


def run_python(code, *arguments):
    """A program that tells what it does line by line and waits for its standard input to end."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env=environment(),
    )


HOLDER = """
    import multiprocessing, sys, time
    from pathlib import Path
    from accelerate import PartialState
    from stvideo.runtime.lock import RunLock

    with RunLock(Path(sys.argv[1]), PartialState(cpu=True)):
        if sys.argv[2] == "worker":  # forked, as data workers are
            multiprocessing.get_context("fork").Process(target=time.sleep, args=(300,), daemon=True).start()
            print(multiprocessing.active_children()[0].pid, flush=True)
        print("locked", flush=True)
        sys.stdin.read()
"""


def test_the_lock_names_its_holder_and_ends_with_it(tmp_path):
    state = PartialState(cpu=True)
    holder = run_python(HOLDER, tmp_path, "alone")
    wait_for(holder, "locked")
    with (
        pytest.raises(StvideoError, match=rf"another run is writing there \(process {holder.pid} on .*\); wait for it"),
        RunLock(tmp_path, state, patience=0.0),
    ):
        pass
    (tmp_path / "other").mkdir()
    with RunLock(tmp_path / "other", state, patience=0.0):
        pass
    holder.communicate(timeout=60)
    with RunLock(tmp_path, state):
        assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on ")
    assert (tmp_path / ".lock").read_text() == ""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_data_workers_of_a_killed_run_do_not_keep_the_lock(tmp_path):
    holder = run_python(HOLDER, tmp_path, "worker")
    worker = int(holder.stdout.readline())
    try:
        wait_for(holder, "locked")
        holder.kill()
        holder.wait(timeout=60)
        os.kill(worker, 0)  # it is still there
        with RunLock(tmp_path, PartialState(cpu=True)):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)


def test_file_systems_without_locks_are_taken_as_they_are(tmp_path, monkeypatch):
    def no_locks(*_arguments):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.lockf", no_locks)
    with RunLock(tmp_path, PartialState(cpu=True)):
        pass


def test_the_same_command_twice_at_once_is_one_line(data, config, tmp_path, capsys):
    arguments = [config, *TINY, *data, *ENDLESS, f"output={tmp_path}"]
    process = start(*arguments)
    try:
        wait_for(process, "step 1/")
        common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
        pair = [start(*arguments, environment_of_rank={**common, "RANK": r, "LOCAL_RANK": r}) for r in "01"]
        assert run_here("train", *arguments) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert re.search(rf"{tmp_path}: another run is writing there \(process {process.pid} on ", line)
        for each in pair:  # the second process of a run learns it from the first
            _, errors = each.communicate(timeout=120)
            assert each.returncode == 2, errors
            assert f"another run is writing there (process {process.pid} on " in errors
            assert "Traceback" not in errors
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    steps = [record["step"] for record in read_log(tmp_path, "train")]
    assert steps == list(range(1, len(steps) + 1))


# ---- launchers that die ----


@pytest.mark.parametrize("launcher", ["torchrun", pytest.param("accelerate", marks=pytest.mark.slow)])
def test_the_processes_of_a_killed_launcher_stop_with_a_checkpoint(data, config, tmp_path, launcher):
    arguments = [config, *TINY, *data, *ENDLESS, f"output={tmp_path}", "data.batch_size=2"]
    line = command("train", *arguments, processes=2)
    if launcher == "accelerate":
        line = [*line[:2], "accelerate.commands.launch", "--cpu", "--num_processes", "1", *line[6:]]
    process = subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=REPOSITORY, env=environment()
    )
    wait_for(process, "step 2/")
    process.kill()
    printed = process.stdout.read()  # ends when the last of its processes does
    process.wait(timeout=60)
    assert "stopped because the launcher has gone with a checkpoint" in printed
    assert read_log(tmp_path, "event")[-1]["event"] == "stopped because the launcher has gone"
    last = read_log(tmp_path, "train")[-1]["step"]
    assert (tmp_path / "last").resolve().name == f"step-{last:08d}"


def test_a_run_without_a_launcher_outlives_its_shell(tmp_path, monkeypatch):
    for name in ("TORCHELASTIC_RUN_ID", "ACCELERATE_DYNAMO_MODE"):
        monkeypatch.delenv(name, raising=False)
    assert not started_by_launcher()
    stop = StopSignal()
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert stop.reason is None
