"""Faults of the machine, through the real command: a full disk, a decode that never ends, a state to look into."""

import json
import os
import shutil
import subprocess

import pytest
import torch
from accelerate import Accelerator

from stvideo.runtime.run_folder import RunFolder
from stvideo.runtime.signals import StopSignal
from stvideo.settings.config import load_config
from stvideo.training.checkpoint import check_checkpoint
from stvideo.training.data import TrainingData
from stvideo.training.log import TrainingLog
from stvideo.training.session import Session
from tests.tiny_runs import TINY, make_data, read_log, run_here


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
@pytest.mark.parametrize("taken_by", ["checkpoints", "log"])
def test_a_disk_that_fills_up_is_one_line_and_the_run_goes_on_afterwards(data, config, tmp_path, capsys, taken_by):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {mounted.stderr.decode().strip()}")
    try:
        arguments = [config, *TINY, *data, f"output={disk / 'run'}", "train.keep_checkpoints=50"]
        every = "train.checkpoint_every_steps=1" if taken_by == "checkpoints" else "train.checkpoint_every_steps=100"
        assert run_here("train", *arguments, "train.max_steps=1") == 0
        if taken_by == "log":
            with (disk / "ballast").open("wb", buffering=0) as ballast, pytest.raises(OSError, match="No space"):
                while ballast.write(b"0" * 4096):
                    pass
        capsys.readouterr()
        assert run_here("train", *arguments, every) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert "the disk is full" in line or "No space left on device" in line
        assert "intact" in line
        assert check_checkpoint((disk / "run" / "last").resolve()) is None
        (disk / "ballast").unlink(missing_ok=True)
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        assert run_here("train", *arguments, every, "train.max_steps=8") == 0
        assert read_log(disk / "run", "train")[-1]["step"] == 8
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_video_that_never_ends_decoding_is_given_up(config, tmp_path, capsys):
    data = make_data(tmp_path / "videos")
    video = tmp_path / "videos" / "train" / "left" / "0.mp4"
    content = video.read_bytes()
    video.unlink()
    os.mkfifo(video)  # opening it waits for a writer that never comes
    arguments = [config, *TINY, *data, f"output={tmp_path / 'run'}", "train.epochs=1", "data.batch_size=6"]
    try:
        status = run_here("train", *arguments, "data.timeout=2", "data.max_unreadable=0.1", "data.workers=1")
        errors = capsys.readouterr().err
    finally:
        video.unlink()
        video.write_bytes(content)
    assert status == 0, errors
    assert str(video) in errors
    assert sum(record["substituted_clips"] for record in read_log(tmp_path / "run", "train")) >= 1


def test_the_state_before_a_bad_step_repeats_it(data, config, tmp_path, capsys):
    settings = [config, *TINY, *data, "train.lr=1e30", "train.max_bad_steps=1"]
    assert run_here("train", *settings, f"output={tmp_path / 'run'}") == 2
    told = [json.loads(line) for line in (tmp_path / "run" / "bad_steps.jsonl").read_text().splitlines()]
    assert check_checkpoint(tmp_path / "run" / "bad_state") is None
    shutil.move(tmp_path / "run" / "bad_state", tmp_path / "state")
    resume = [f"resume={tmp_path / 'state'}", f"output={tmp_path / 'again'}", "train.max_bad_steps=0"]
    assert run_here("train", *settings[:-1], *resume) == 2
    (again,) = [json.loads(line) for line in (tmp_path / "again" / "bad_steps.jsonl").read_text().splitlines()]
    assert again == told[-1]
    assert "for 1 steps in a row" in capsys.readouterr().err


def test_a_scaled_learning_rate_is_said_and_logged(data, config, tmp_path, capsys):
    settings = ["train.lr=0.01", "train.lr_batch_size=2", "train.schedule=constant", "train.max_steps=1"]
    assert run_here("train", config, *TINY, *data, *settings, f"output={tmp_path}", "train.lr=0.01") == 0
    assert "peak learning rate 0.02 = 0.01 x 4 / 2 clips" in capsys.readouterr().out
    assert read_log(tmp_path, "train")[0]["lr"] == pytest.approx(0.02)


def test_going_back_sets_later_checkpoints_aside(data, config, tmp_path):
    arguments = [
        config,
        *TINY,
        *data,
        f"output={tmp_path}",
        "train.keep_checkpoints=9",
        "train.checkpoint_every_steps=1",
    ]
    assert run_here("train", *arguments, "train.max_steps=3") == 0
    back = f"resume={tmp_path / 'checkpoints' / 'step-00000001'}"
    assert run_here("train", *arguments, back, "train.max_steps=2") == 0
    assert run_here("train", *arguments, "train.max_steps=3") == 0
    assert [record["step"] for record in read_log(tmp_path, "train")] == [1, 2, 3]
    assert (tmp_path / "checkpoints" / "step-00000003.aside").is_dir()


def test_averages_in_the_log_outlive_a_resume(data, config, tmp_path):
    settings = ["train.log_every_steps=3", "train.max_steps=6", "train.checkpoint_every_steps=1"]
    arguments = [config, *TINY, *data, *settings, "train.keep_checkpoints=9"]
    assert run_here("train", *arguments, f"output={tmp_path / 'whole'}") == 0
    resume = f"resume={tmp_path / 'whole' / 'checkpoints' / 'step-00000005'}"
    assert run_here("train", *arguments, f"output={tmp_path / 'rest'}", resume) == 0
    whole, rest = (read_log(tmp_path / name, "train") for name in ("whole", "rest"))
    assert [record["step"] for record in whole] == [3, 6]
    (last,) = rest
    assert (last["loss"], last["top1"]) == (whole[-1]["loss"], whole[-1]["top1"])


def test_a_checkpoint_moved_and_not_yet_replaced_is_found_again(data, config, tmp_path):
    """Killed between two renames, the only checkpoint of the run has another name."""
    arguments = [config, *TINY, *data, f"output={tmp_path}"]
    assert run_here("train", *arguments, "train.max_steps=2") == 0
    final = (tmp_path / "last").resolve()
    final.rename(final.with_name(f".old-{final.name}"))
    assert run_here("train", *arguments, "train.max_steps=3") == 0
    assert "step-00000002" in read_log(tmp_path, "event")[-2]["checkpoint"]


def test_a_process_that_fails_leaves_the_group_open(data, config, tmp_path):
    """Closing it waits for the others, who wait for this one: what went wrong would be told after the time-out."""
    config = load_config(config, [*TINY, *data, f"output={tmp_path}", "train.trackers=[]"])
    run, accelerator = RunFolder(tmp_path), Accelerator(cpu=True)
    run.prepare()
    session = Session(config, run, accelerator, StopSignal(), TrainingData(config, accelerator))
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        for error, is_open in ((ValueError("no such thing"), True), (None, False)):
            session.log = TrainingLog(run, accelerator, config, step=0, total_steps=1)
            session.__exit__(type(error) if error else None, error, None)
            assert torch.distributed.is_initialized() == is_open
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
