"""Checkpoints that are damaged, hostile, too many, or do not fit on the disk."""

import json
import os
import pickle
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from stvideo.core.errors import StvideoError
from stvideo.runtime.run_folder import RunFolder
from stvideo.settings.config import Config, to_dict
from stvideo.training.checkpoint import (
    check_checkpoint,
    check_same_model,
    find_checkpoint,
    load_state,
    other_differences,
    save_checkpoint,
)
from stvideo.training.progress import Progress


def save(run, step, keep=2, is_best=False, size=4):
    weights = {"w": torch.full((size,), float(step))}
    return save_checkpoint(
        run,
        write_model=lambda path: save_file(weights, path),
        weights=None,
        optimizer={"state": {0: {"momentum": torch.ones(size)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        scaler=None,
        progress=Progress(epoch=1, step=step, videos=3),
        facts={"processes": 1},
        config=Config(),
        keep=keep,
        is_best=is_best,
    )


@pytest.fixture
def run(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.prepare()
    return folder


def names(run):
    return sorted(path.name for path in run.checkpoints.iterdir())


def test_a_checkpoint_comes_back(run):
    folder = save(run, 7)
    state = load_state(folder)
    assert state.progress == Progress(epoch=1, step=7, videos=3)
    assert state.weights["w"].tolist() == [7.0] * 4
    assert state.optimizer["param_groups"][0]["lr"] == 0.1
    assert (run.path / "last").resolve() == folder.resolve()


def test_the_last_k_and_the_best_are_kept(run):
    for step in range(1, 7):
        save(run, step, keep=2, is_best=step == 2)
    assert names(run) == ["step-00000002", "step-00000005", "step-00000006"]
    assert (run.path / "best").resolve().name == "step-00000002"
    assert not (run.path / "best").readlink().is_absolute()  # the run folder can be moved


def test_the_same_step_again_replaces_its_checkpoint(run):
    save(run, 3)
    save(run, 3, size=9)
    assert names(run) == ["step-00000003"]
    assert load_state(run.checkpoints / "step-00000003").weights["w"].shape == (9,)


@pytest.mark.parametrize("name", ["model.safetensors", "training_state/optimizer.pt", "training_state/progress.json"])
@pytest.mark.parametrize("damage", ["flip a bit", "cut the end", "delete"])
def test_a_damaged_newest_checkpoint_is_reported_and_the_one_before_used(run, name, damage, caplog):
    before, newest = save(run, 1), save(run, 2)
    path = newest / name
    content = bytearray(path.read_bytes())
    if damage == "delete":
        path.unlink()
    elif damage == "cut the end":
        path.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    assert find_checkpoint("auto", run) == before.resolve()
    assert [name in message for message in caplog.messages] == [True]
    assert find_checkpoint("auto", run) == before.resolve()
    assert len(caplog.messages) == 1  # it was set aside


def test_a_step_may_be_damaged_or_set_aside_more_than_once(run):
    first = save(run, 1)
    for _ in range(3):
        (save(run, 2) / "model.safetensors").unlink()
        assert find_checkpoint("auto", run) == first.resolve()
        save(run, 2)
        assert len(run.set_aside_after(1)) == 1
        assert find_checkpoint("auto", run) == first.resolve()
    kept = [f"step-00000002{number}.{suffix}" for number in ("", ".2", ".3") for suffix in ("aside", "damaged")]
    assert names(run) == sorted(["step-00000001", *kept])


def test_only_damaged_checkpoints_is_an_error(run):
    (save(run, 1) / "model.safetensors").unlink()
    for _ in range(2):  # the second time must not start afresh over the log of the run
        with pytest.raises(StvideoError, match="every checkpoint is damaged"):
            find_checkpoint("auto", run)
    assert names(run) == ["step-00000001"]


def test_a_named_damaged_checkpoint_is_an_error(run):
    folder = save(run, 1)
    (folder / "model.safetensors").unlink()
    with pytest.raises(StvideoError, match=r"damaged checkpoint: model.safetensors is missing"):
        find_checkpoint(str(folder), run)


def test_unfinished_checkpoints_are_not_seen(run):
    save(run, 1)
    (run.checkpoints / ".tmp-step-00000002").mkdir()
    assert find_checkpoint("auto", run).name == "step-00000001"
    save(run, 3)
    assert names(run) == ["step-00000001", "step-00000003"]


def test_a_checksum_list_cannot_point_outside(run):
    folder = save(run, 1)
    (folder / "checksums.json").write_text(json.dumps({"model.safetensors": "", "../../../etc/passwd": ""}))
    assert check_checkpoint(folder) is not None


class Hostile:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


def test_a_pickle_that_runs_code_is_refused(run, tmp_path):
    folder, target = save(run, 1), tmp_path / "code-was-run"
    for write in (pickle.dump, torch.save):
        with (folder / "training_state" / "optimizer.pt").open("wb") as file:
            write({"optimizer": Hostile(target), "scaler": None}, file)
        with pytest.raises(StvideoError, match="cannot continue from this checkpoint"):
            load_state(folder)
        assert not target.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_leaves_the_earlier_checkpoint(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {mounted.stderr.decode().strip()}")
    try:
        run = RunFolder(disk / "run")
        run.prepare()
        save(run, 1, size=1000)
        with pytest.raises(StvideoError, match="the disk is full; earlier checkpoints are intact"):
            save(run, 2, size=200_000)
        assert names(run) == ["step-00000001"]
        assert load_file(run.path / "last" / "model.safetensors")["w"].shape == (1000,)
        assert find_checkpoint("auto", run).name == "step-00000001"
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_another_model_is_told_apart_from_other_settings():
    saved = to_dict(Config())
    current = Config()
    current.train.lr = 1.0
    current.model.grad_checkpointing = True
    check_same_model(saved, current, Path("run"))
    assert other_differences(saved, to_dict(current)) == ["train.lr was 0.0005, is 1.0"]
    current.data.num_frames = 16
    with pytest.raises(StvideoError, match=r"data\.num_frames was 8, is 16"):
        check_same_model(saved, current, Path("run"))
