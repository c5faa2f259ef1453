"""Runs on two processes, through the real launchers: resumed exactly, sharded, split anew, stopped, never hanging."""

import json
import signal
import subprocess
import sys

import pytest

from tests.tiny_runs import (
    RANDOM,
    REPOSITORY,
    TINY,
    assert_same_state,
    environment,
    free_port,
    read_log,
    run_here,
    start,
    state_of,
    wait_for,
)

STEPS = 7  # of two an epoch
ALL = [*TINY, *RANDOM, "data.random_erasing=0.5", "data.flip=false", "train.clip_grad_norm=1.0", "train.epochs=20"]


@pytest.fixture(scope="module")
def uninterrupted(data, config, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "uninterrupted"
    finish(two_processes(config, *ALL, *data, f"output={run}", f"train.max_steps={STEPS}"))
    return run


def two_processes(*arguments, **settings):
    """Both processes of a run, started as torchrun does, but nobody ends them together."""
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    return [start(*arguments, environment_of_rank={**common, **settings, "RANK": r, "LOCAL_RANK": r}) for r in "01"]


def finish(processes):
    """Wait for the end of a run that has to succeed; returns what its first process printed."""
    printed = [process.communicate(timeout=180) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], printed
    return printed[0][0]


def test_a_killed_run_on_two_processes_equals_the_uninterrupted_one(uninterrupted, data, config, tmp_path):
    every_step = ["train.checkpoint_every_steps=1", "train.keep_checkpoints=50"]
    arguments = [config, *ALL, *data, f"output={tmp_path}", *every_step]
    processes = two_processes(*arguments)
    wait_for(processes[0], "step 3/")
    for process in processes:
        process.kill()
    for process in processes:
        process.communicate()
    finish(two_processes(*arguments, f"train.max_steps={STEPS}", "data.workers=1"))
    assert read_log(tmp_path, "event")[0]["event"] == "resumed"
    assert_same_state(uninterrupted, tmp_path, STEPS)


@pytest.mark.parametrize("parts", [[STEPS], pytest.param([4, STEPS], marks=pytest.mark.slow)], ids=["once", "resumed"])
def test_fsdp_trains_like_ddp(uninterrupted, data, config, tmp_path, parts):
    """Weights, moving average and optimiser state are split over two processes; checkpoints are whole."""
    for steps in parts:
        done = sharded(config, *ALL, *data, f"output={tmp_path}", f"train.max_steps={steps}")
        assert done.returncode == 0, done.stderr
    for kind in ("train", "evaluation"):
        ours, theirs = (
            {r["step"]: r.get("loss", r.get("top1")) for r in read_log(run, kind)} for run in (tmp_path, uninterrupted)
        )
        assert all(ours[step] == pytest.approx(value, abs=1e-5) for step, value in theirs.items())
    expected, found = state_of(uninterrupted, STEPS), state_of(tmp_path, STEPS)
    assert {name: value.shape for name, value in found.items()} == {n: v.shape for n, v in expected.items()}


def sharded(*arguments):
    """Train under FSDP through Accelerate's launcher."""
    launcher = ["--config_file", "configs/accelerate/fsdp.yaml", "--num_processes", "2", "--main_process_port", "0"]
    return subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", *launcher, "-m", "stvideo.train", *arguments],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env=environment(),
        timeout=180,
    )


@pytest.mark.slow
def test_the_order_of_the_videos_outlives_the_number_of_processes(data, config, tmp_path):
    """2 processes, then 1, then 2, each with a global batch of its own, see what one process would have seen."""
    # Steps without a finite gradient are skipped and their videos written down: here, all of them.
    every = [config, *TINY, data[0], data[1], "data.std=[1e-43,1e-43,1e-43]", "train.max_bad_steps=1000"]
    assert run_here("train", *every, f"output={tmp_path / 'one'}", "train.epochs=1", "data.batch_size=2") == 0
    expected = order_of(tmp_path / "one", 1)
    assert len(set(expected)) == 18

    again = [*every, f"output={tmp_path / 'again'}", "train.epochs=1"]
    finish(two_processes(*again, "data.batch_size=1", "train.max_steps=2"))
    assert run_here("train", *again, "data.batch_size=3", "train.max_steps=4") == 0
    printed = finish(two_processes(*again, "data.batch_size=4"))
    assert "processes was 1, is 2" in printed
    assert "global_batch was 3, is 8" in printed
    assert order_of(tmp_path / "again", 2) == expected
    assert [record["step"] for record in read_log(tmp_path / "again", "train")] == [1, 2, 3, 4, 5]
    assert (tmp_path / "again" / "last").resolve().name == "step-00000005"


def order_of(run, processes):
    """Video ids in the order of training; processes take turns."""
    steps = {}
    for line in (run / "bad_steps.jsonl").read_text().splitlines():
        record = json.loads(line)
        steps.setdefault(record["step"], {})[record["process"]] = record["ids"]
    return [
        video
        for _, by_process in sorted(steps.items())
        for turn in zip(*(by_process[process] for process in sorted(by_process)), strict=True)
        for video in turn
    ]


# ---- ends that are not the planned one ----


def test_a_signal_to_the_launcher_leaves_a_checkpoint(data, config, tmp_path):
    process = start(config, *TINY, *data, f"output={tmp_path}", "data.batch_size=2", "train.epochs=1000", processes=2)
    wait_for(process, "step 2/")
    process.send_signal(signal.SIGTERM)  # as a scheduler does, to the process that it started
    printed, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "stopped by a signal with a checkpoint" in printed
    saved = json.loads((tmp_path / "last" / "training_state" / "progress.json").read_text())["progress"]
    assert saved["step"] == read_log(tmp_path, "train")[-1]["step"] >= 2


@pytest.mark.slow
def test_a_process_that_hangs_stops_the_others_after_the_time_out(data, config, tmp_path):
    arguments = [config, *TINY, *data, f"output={tmp_path}", "train.epochs=1000", "data.batch_size=2"]
    first, second = two_processes(*arguments, "train.process_timeout_minutes=0.15")
    try:
        wait_for(first, "step 2/")
        second.send_signal(signal.SIGSTOP)
        _, errors = first.communicate(timeout=120)
    finally:
        second.kill()
        second.communicate()
    assert first.returncode == 2, errors
    assert "another process of this run has gone or does not answer" in errors
    assert "Traceback" not in errors


def test_processes_that_do_not_meet_say_so(data, config, tmp_path):
    lonely = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "RANK": "0", "LOCAL_RANK": "0"}
    arguments = [config, *TINY, *data, f"output={tmp_path}", "train.process_timeout_minutes=0.05"]
    process = start(*arguments, environment_of_rank=lonely)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2, errors
    assert "do not find one another at 127.0.0.1" in errors
    assert "Traceback" not in errors


def test_all_processes_say_why_they_cannot_continue(data, config, tmp_path):
    arguments = [config, *TINY, *data, f"output={tmp_path}", "data.batch_size=2", "train.max_steps=1"]
    assert run_here("train", *arguments) == 0
    (tmp_path / "last" / "model.safetensors").write_bytes(b"damaged")
    processes = two_processes(*arguments)
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [2, 2], errors
    assert all("every checkpoint is damaged" in text and "Traceback" not in text for text in errors)
