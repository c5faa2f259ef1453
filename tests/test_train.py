"""The training command: from files to checkpoints, exact resume, two processes."""

import json
import os
import signal
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from stvideo.settings.config import load_config
from stvideo.training.checkpoint import check_checkpoint
from tests.tiny_runs import (
    RANDOM,
    TINY,
    assert_one_line,
    assert_same_state,
    free_port,
    read_log,
    run_command,
    run_here,
    start,
    state_of,
    wait_for,
)


@pytest.fixture(scope="module")
def uninterrupted(data, config, tmp_path_factory):
    """Seven steps of four an epoch, in one go."""
    run = tmp_path_factory.mktemp("runs") / "uninterrupted"
    assert run_here("train", config, *TINY, *data, *RANDOM, f"output={run}", "train.max_steps=7") == 0
    return run


# ---- the main job ----


def test_train_evaluate_and_go_on(data, config, tmp_path):
    run = tmp_path / "run"
    arguments = [config, *TINY, *data, f"output={run}", "train.trackers=[tensorboard]", "data.workers=1"]
    first = run_command("train", *arguments, "train.max_steps=3")
    assert first.returncode == 0, first.stderr

    losses = [record["loss"] for record in read_log(run, "train")]
    assert len(losses) == 3
    assert all(0 < loss < 10 for loss in losses)
    assert load_config(run / "config.yaml").train.max_steps == 3
    described = json.loads((run / "environment.json").read_text())
    assert described["processes"] == 1
    assert "torch" in described["versions"]
    assert list((run / "trackers").rglob("events.out.tfevents.*"))
    assert (run / "last").resolve() == (run / "best").resolve() == run / "checkpoints" / "step-00000003"

    evaluated = run_command("evaluate", config, *data, f"checkpoint={run}", "evaluate.views=1x3")
    assert evaluated.returncode == 0, evaluated.stderr
    assert "1x3 views" in evaluated.stdout
    assert "7 of 7 videos" in evaluated.stdout
    assert 0 <= json.loads((run / "metrics.json").read_text())["top1"] <= 100

    second = run_command("train", *arguments, "train.max_steps=5")
    assert second.returncode == 0, second.stderr
    assert "at step 3" in second.stdout
    assert [record["step"] for record in read_log(run, "train")] == [1, 2, 3, 4, 5]
    again = run_command("train", *arguments, "train.max_steps=5")
    assert again.returncode == 0
    assert "nothing left to do" in again.stdout


def test_the_model_learns(data, config, tmp_path):
    """Every class has a shade of its own: a working loop fits 18 clips in a few epochs."""
    # A mirrored clip of "left" counts as "right", so shades would no longer tell them apart.
    settings = [
        "data.flip=false",
        "train.lr=3e-3",
        "train.epochs=30",
        "data.batch_size=9",
        "train.eval_every_epochs=30",
    ]
    assert run_here("train", config, *TINY, *data, *settings, f"output={tmp_path}") == 0
    losses = [record["loss"] for record in read_log(tmp_path, "train")]
    assert sum(losses[-4:]) < 0.3 * sum(losses[:4])
    assert read_log(tmp_path, "evaluation")[-1]["top1"] > 80


def test_fine_tuning_and_distilling_a_reduced_model_from_a_dense_run(data, config, tmp_path, capsys):
    dense, reduced = tmp_path / "dense", tmp_path / "reduced"
    assert run_here("train", config, *TINY, *data, f"output={dense}", "train.max_steps=2") == 0
    evit = "model.reduction.evit={keep_rate: 0.5, layers: [1], shrink_start_epoch: 0.25, shrink_epochs: 1}"
    frozen = "train.freeze=[patch_embed,blocks.0]"
    start = [
        f"init={dense}",
        f"train.teacher={dense}",
        evit,
        frozen,
        "train.label_smoothing=0.1",
        "train.layer_decay=0.8",
    ]
    assert run_here("train", config, *TINY, *data, *start, f"output={reduced}", "train.epochs=2") == 0
    printed = capsys.readouterr().out
    assert "weights loaded" in printed
    assert f"distilling from {dense}" in printed
    before, after = state_of(dense, 2), state_of(reduced, 8)
    assert torch.equal(before["model.blocks.0.mlp.fc1.weight"], after["model.blocks.0.mlp.fc1.weight"])
    assert not torch.equal(before["model.blocks.1.mlp.fc1.weight"], after["model.blocks.1.mlp.fc1.weight"])
    rates = [record["evit/keep_rate"] for record in read_log(reduced, "train")]
    assert rates[0] == rates[1] == 1.0  # counted in epochs of four steps, changed at every one of them
    assert all(a > b for a, b in pairwise(rates[1:6]))
    assert rates[-1] == 0.5
    assert (
        run_here(
            "train", config, *TINY, *data, f"train.teacher={dense}", "data.mean=[0,0,0]", f"output={tmp_path / 'other'}"
        )
        == 2
    )
    assert_one_line(capsys, r"train.teacher=.*data.mean=\[0.45.*this run has \[0.0")


# ---- exact resume ----


@pytest.mark.parametrize("stop", [2, 4], ids=["mid-epoch", "end of epoch"])
def test_resumed_run_equals_uninterrupted_one(uninterrupted, data, config, tmp_path, stop):
    arguments = [config, *TINY, *data, *RANDOM, f"output={tmp_path}"]
    assert run_here("train", *arguments, f"train.max_steps={stop}") == 0
    assert run_here("train", *arguments, "train.max_steps=7", "data.workers=2") == 0
    assert_same_state(uninterrupted, tmp_path, 7)


def test_killed_run_equals_uninterrupted_one(uninterrupted, data, config, tmp_path):
    arguments = [config, *TINY, *data, *RANDOM, f"output={tmp_path}", "train.checkpoint_every_steps=1"]
    process = start(*arguments)
    wait_for(process, "step 3/")
    process.kill()
    process.communicate()
    assert run_here("train", *arguments, "train.max_steps=7") == 0
    assert read_log(tmp_path, "event")[0]["event"] == "resumed"
    assert_same_state(uninterrupted, tmp_path, 7)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_signal_writes_a_checkpoint_and_says_so(data, config, tmp_path, name):
    arguments = [config, *TINY, *data, f"output={tmp_path}", "train.epochs=1000", "train.eval_every_epochs=1000"]
    process = start(*arguments)
    wait_for(process, "step 2/")
    process.send_signal(getattr(signal, name))
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + getattr(signal, name)
    assert "the same command continues this run" in rest
    saved = json.loads((tmp_path / "last" / "training_state" / "progress.json").read_text())["progress"]
    assert saved["step"] == read_log(tmp_path, "train")[-1]["step"] >= 2


def test_another_model_or_optimizer_is_not_continued(uninterrupted, data, config, capsys):
    arguments = [config, *TINY, *data, *RANDOM, f"output={uninterrupted}", "model.args.depth=4"]
    assert run_here("train", *arguments) == 2
    assert_one_line(capsys, r"cannot continue with another model.*model.args was")
    arguments = [config, *TINY, *data, *RANDOM, f"output={uninterrupted}"]
    assert run_here("train", *arguments, "train.optimizer=sgd") == 2
    assert_one_line(capsys, r"cannot continue: train.optimizer was adamw, is sgd")
    assert run_here("train", *arguments, "train.layer_decay=0.5") == 2
    assert_one_line(capsys, r"cannot continue: train.layer_decay, head_lr_scale")


def test_never_starts_afresh_and_keeps_the_earlier_run(data, config, tmp_path):
    arguments = [config, *TINY, *data, f"output={tmp_path}", "train.max_steps=1"]
    assert run_here("train", *arguments) == 0
    assert run_here("train", *arguments, "resume=never") == 0
    assert [record["step"] for record in read_log(tmp_path, "train")] == [1]
    assert (tmp_path / "previous-1" / "checkpoints" / "step-00000001" / "model.safetensors").exists()
    assert (tmp_path / "last" / "model.safetensors").exists()


# ---- several processes ----


def test_a_run_is_the_same_however_it_is_split(data, config, tmp_path):
    """One process, two, accumulated batches, or two processes continued by one: the same losses and weights."""
    same = [
        config,
        *TINY,
        *data,
        "model.drop_path_rate=0",
        "train.optimizer=sgd",
        "train.lr=0.05",
        "evaluate.views=1x1",
    ]

    def train(name, *overrides, processes=1):
        arguments = [*same, f"output={tmp_path / name}", *overrides]
        if processes == 1:
            assert run_here("train", *arguments) == 0
        else:
            done = run_command("train", *arguments, processes=processes)
            assert done.returncode == 0, done.stderr

    train("one", "train.max_steps=4")
    train("accumulated", "train.max_steps=4", "data.batch_size=1", "train.accumulation_steps=4")
    train("two", "train.max_steps=3", "data.batch_size=2", processes=2)
    train("two", "train.max_steps=4")
    assert len(read_log(tmp_path / "two", "train")) == 4  # one log, from the first process
    (resumed,) = read_log(tmp_path / "two", "event")[1:-1]
    assert "  changed since: processes was 2, is 1" in resumed["differences"]
    reference = state_of(tmp_path / "one", 4)
    for name in ("two", "accumulated"):
        for key, value in state_of(tmp_path / name, 4).items():
            torch.testing.assert_close(value, reference[key], rtol=1e-5, atol=1e-5)
        for a, b in zip(read_log(tmp_path / "one", "train"), read_log(tmp_path / name, "train"), strict=True):
            assert a["loss"] == pytest.approx(b["loss"], abs=1e-5)
            assert a["lr"] == b["lr"]


# ---- failures of the machine ----


def children(process):
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def test_a_loss_that_is_not_finite_is_skipped_a_few_times_and_then_stops_the_run(data, config, tmp_path, capsys):
    arguments = [config, *TINY, *data, f"output={tmp_path}", "train.lr=1e30", "train.max_bad_steps=2"]
    assert run_here("train", *arguments) == 2
    message = capsys.readouterr().err
    assert "the gradient was not finite for 3 steps in a row" in message
    records = [json.loads(line) for line in (tmp_path / "bad_steps.jsonl").read_text().splitlines()]
    assert len(records) == 3
    assert all(
        len(record["ids"]) == len(record["videos"]) == 4 and Path(record["videos"][0]).exists() for record in records
    )
    assert check_checkpoint(tmp_path / "bad_state") is None


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_a_killed_loader_worker_is_one_line(data, config, tmp_path):
    process = start(config, *TINY, *data, f"output={tmp_path}", "train.epochs=1000", "data.workers=1")
    wait_for(process, "step 2/")
    for pid in children(process):
        if b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert len(errors.strip().splitlines()) == 1, errors
    assert "a data worker died" in errors


def test_when_one_process_dies_the_others_stop(data, config, tmp_path):
    arguments = [config, *TINY, *data, f"output={tmp_path}", "train.epochs=1000", "data.batch_size=2"]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    first, second = (start(*arguments, environment_of_rank={**common, "RANK": r, "LOCAL_RANK": r}) for r in "01")
    wait_for(first, "step 2/")
    second.kill()
    _, errors = first.communicate(timeout=60)
    second.communicate()
    assert first.returncode == 2
    assert "another process of this run has gone" in errors
    assert "Traceback" not in errors
