"""Out of memory: a sentence that helps, or the same step in smaller pieces."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from stvideo.models.timesformer import TimeSformer
from stvideo.settings import memory_advice
from stvideo.settings.config import load_config
from tests.tiny_runs import REPOSITORY, TINY, environment, free_port, read_log, run_here
from tests.training.starved import starve

# Mixing draws per batch and is repeated with it; drop path draws per piece.
SETTINGS = [
    *TINY,
    "model.drop_path_rate=0",
    "data.flip=false",
    "data.mixup=0.5",
    "train.optimizer=sgd",
    "train.lr=0.05",
]


@pytest.fixture(scope="module")
def ample(data, config, tmp_path_factory):
    """Four steps of four clips, which fit."""
    run = tmp_path_factory.mktemp("runs") / "ample"
    assert run_here("train", config, *SETTINGS, *data, f"output={run}", "train.max_steps=4") == 0
    return run


def assert_same_training(run, other):
    """The same losses and weights, to the last few digits."""
    for a, b in zip(read_log(run, "train"), read_log(other, "train"), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-5)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-4)
    weights, expected = (load_file(folder / "last" / "model.safetensors") for folder in (run, other))
    for name, value in weights.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-5)


def test_the_step_is_repeated_in_smaller_pieces_for_the_rest_of_the_run(ample, data, config, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(TimeSformer, "forward", starve(1, seen))
    arguments = [config, *SETTINGS, *data, f"output={tmp_path}", "train.halve_batch_on_oom=true"]
    assert run_here("train", *arguments, "train.max_steps=2") == 0
    assert run_here("train", *arguments, "train.max_steps=4") == 0
    assert set(seen) == {1}
    events = [event for event in read_log(tmp_path, "event") if event["event"] == "out of memory"]
    assert [event["micro_batch"] for event in events] == [2, 1]  # the resumed part knows
    saved = json.loads((tmp_path / "last" / "training_state" / "progress.json").read_text())
    assert saved["progress"]["micro_batch"] == 1
    assert_same_training(tmp_path, ample)


def test_processes_agree_when_one_of_them_runs_out(ample, data, config, tmp_path):
    arguments = [config, *SETTINGS, *data, f"output={tmp_path}", "train.halve_batch_on_oom=true", "train.max_steps=4"]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.training.starved", "1", "1", *arguments, "data.batch_size=2", "data.mixup=0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            env=environment() | common | {"RANK": rank, "LOCAL_RANK": rank},
        )
        for rank in "01"
    ]
    printed = [process.communicate(timeout=180) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], printed
    assert "step 0: out of memory: the step is repeated with 1 clips at a time" in printed[0][0]
    plain = tmp_path / "plain"
    assert run_here("train", config, *SETTINGS, *data, "data.mixup=0", f"output={plain}", "train.max_steps=4") == 0
    assert_same_training(tmp_path, plain)


def test_without_it_the_message_says_what_to_change(data, config, tmp_path, monkeypatch, capsys):
    arguments = [config, *SETTINGS, *data, f"output={tmp_path}"]
    monkeypatch.setattr(TimeSformer, "forward", starve(2))
    assert run_here("train", *arguments) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "memory is full" in line
    assert "data.batch_size=2 train.accumulation_steps=2" in line
    assert "train.halve_batch_on_oom=true" in line
    monkeypatch.undo()
    monkeypatch.setattr(TimeSformer, "forward", starve(0))
    assert run_here("train", *arguments, "train.halve_batch_on_oom=true", "resume=never") == 2
    assert "even with one clip at a time" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setattr(TimeSformer, "forward", starve(2, training=False))
    assert run_here("train", *arguments, "train.max_steps=1", "resume=never") == 2
    assert "evaluate.batch_size=2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "said", "unsaid"),
    [
        (["data.batch_size=3"], "data.batch_size=1 train.accumulation_steps=3", "accumulation_steps=2"),
        (["data.batch_size=8", "data.clips_per_video=4"], "data.batch_size=4 train.accumulation_steps=2", "size=2 "),
        (["data.batch_size=6", "data.clips_per_video=2"], "data.batch_size=2 train.accumulation_steps=3", "size=3 "),
        (["data.batch_size=1"], "model.grad_checkpointing=true", "accumulation_steps"),
        (["data.batch_size=1", "train.precision=bf16", "model.grad_checkpointing=true"], "fsdp.yaml", "bf16"),
    ],
)
def test_the_advice_keeps_the_training_the_same(overrides, said, unsaid):
    text = memory_advice.for_training(load_config(None, overrides))
    assert said in text
    assert unsaid not in text
