"""Reductions in training: loss terms of their own, with a teacher or without, and calibration before the first step."""

import pytest
import torch
from safetensors.torch import load_file

import stvideo
from stvideo.reduction.base import _REGISTRY
from stvideo.training.losses import TrainingLoss
from tests.reduction.toy_methods import TOYS
from tests.tiny_runs import TINY, read_log, run_command, run_here, state_of
from tests.training.starved import starve
from tests.training.test_processes import sharded

GATHER = "model.reduction.toy_gather={layers: [1], keep_rate: 0.5}"
CALIBRATED = "model.reduction.toy_calibrated={layers: [1], tokens: 3}"
PLUGIN = "plugins=[tests.reduction.toy_plugin]"
TERM = "toy_gather/ratio"
# One process or two, whole batches or pieces: the same training.
SAME = [*TINY, GATHER, "model.drop_path_rate=0", "data.flip=false", "train.max_steps=2", "train.optimizer=sgd"]


@pytest.fixture(autouse=True)
def _toys(monkeypatch):
    for name, method in TOYS.items():
        monkeypatch.setitem(_REGISTRY, name, method)


def small(**options):
    arguments = dict(num_classes=3, num_frames=2, img_size=32, embed_dim=32, depth=3, num_heads=2)
    return stvideo.create_model("timesformer_tiny_patch16_224", **arguments, **options)


def test_terms_are_added_to_the_loss_and_see_the_teacher(monkeypatch):
    model, clip, target = small(reduction={"toy_gather": {"layers": [1]}}).train(), torch.randn(2, 3, 2, 32, 32), [0, 1]
    seen = []
    losses = TOYS["toy_gather"].losses
    monkeypatch.setattr(TOYS["toy_gather"], "losses", lambda self, o: seen.append(o) or losses(self, o))
    logits, tokens = model(clip, return_tokens=True)
    target = torch.tensor(target)
    for teacher in (None, small()):
        loss, terms = TrainingLoss(model, teacher=teacher)(logits, target, clip, tokens)
        plain, _ = TrainingLoss(small(), teacher=teacher)(logits, target, clip)
        assert list(terms) == [TERM]
        torch.testing.assert_close(loss, plain + terms[TERM])
    alone, distilled = seen
    assert alone.logits is logits and alone.tokens is tokens and alone.teacher_logits is alone.teacher_tokens is None
    assert distilled.teacher_logits.shape == logits.shape and distilled.teacher_tokens.patches.shape[0] == 2
    assert not distilled.teacher_logits.requires_grad


def test_a_run_logs_every_term_and_resumes_exactly(data, config, tmp_path):
    settings = [config, *TINY, *data, GATHER, "train.log_every_steps=3"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run_here("train", *settings, f"output={whole}", "train.max_steps=6") == 0
    for steps in (2, 6):  # in the middle of an average
        assert run_here("train", *settings, f"output={parts}", f"train.max_steps={steps}") == 0
    terms = [record[TERM] for record in read_log(whole, "train")]
    assert len(terms) == 2 and all(0 < term < 1 for term in terms)
    assert read_log(parts, "train")[-1][TERM] == terms[-1]
    state = state_of(whole, 6)
    assert all(torch.equal(value, state[name]) for name, value in state_of(parts, 6).items())


def test_calibration_sees_the_first_clips_of_a_fresh_run_only(data, config, tmp_path, monkeypatch, capsys):
    sizes, clips = [], []

    def noted(self, model, given):
        sizes.append(sum(map(len, given)))
        clips.append(torch.cat(list(given)))
        assert not model.training
        self.places.copy_(torch.tensor([3, 1, 0]))

    monkeypatch.setattr(TOYS["toy_calibrated"], "calibrate", noted)
    settings = [config, *TINY, *data, CALIBRATED, "train.calibration_clips=6", f"output={tmp_path}"]
    assert run_here("train", *settings, "train.max_steps=1") == 0
    assert "reductions calibrated on 8 training clips" in capsys.readouterr().out
    assert run_here("train", *settings, "train.max_steps=2") == 0
    assert sizes == [8]  # two batches of four, and not again on resume
    saved = load_file(tmp_path / "last" / "model.safetensors")["reductions.toy_calibrated.places"]
    assert saved.tolist() == [3, 1, 0]
    assert run_here("train", *settings, "train.max_steps=1", "resume=never", "data.workers=1") == 0
    assert torch.equal(clips[0], clips[1])


def test_terms_are_the_same_however_a_step_is_divided(data, config, tmp_path, monkeypatch):
    arguments = [config, *SAME, *data]
    assert run_here("train", *arguments, f"output={tmp_path / 'one'}") == 0
    divided = {
        "accumulated": ["data.batch_size=1", "train.accumulation_steps=4"],
        "pieces": ["train.halve_batch_on_oom=true"],
    }
    for name, settings in divided.items():
        with monkeypatch.context() as patch:
            if name == "pieces":
                patch.setattr("stvideo.models.timesformer.TimeSformer.forward", starve(1))
            assert run_here("train", *arguments, *settings, f"output={tmp_path / name}") == 0
    done = run_command("train", *arguments, "data.batch_size=2", PLUGIN, f"output={tmp_path / 'two'}", processes=2)
    assert done.returncode == 0, done.stderr
    reference, steps = state_of(tmp_path / "one", 2), read_log(tmp_path / "one", "train")
    for name in (*divided, "two"):
        for ours, theirs in zip(read_log(tmp_path / name, "train"), steps, strict=True):
            assert ours[TERM] == pytest.approx(theirs[TERM], abs=1e-5)
            assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)
        for key, value in state_of(tmp_path / name, 2).items():
            torch.testing.assert_close(value, reference[key], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_terms_under_fsdp(data, config, tmp_path):
    arguments = [config, *SAME, *data, "data.batch_size=2", PLUGIN]
    done = sharded(*arguments, f"output={tmp_path / 'sharded'}")
    assert done.returncode == 0, done.stderr
    done = run_command("train", *arguments, f"output={tmp_path / 'two'}", processes=2)
    assert done.returncode == 0, done.stderr
    for ours, theirs in zip(*(read_log(tmp_path / name, "train") for name in ("sharded", "two")), strict=True):
        assert ours[TERM] == pytest.approx(theirs[TERM], abs=1e-5)


@pytest.mark.slow
def test_terms_of_a_compiled_model(data, config, tmp_path):
    for compiled in ("true", "false"):
        settings = [f"train.compile={compiled}", f"output={tmp_path / compiled}"]
        assert run_here("train", config, *SAME, *data, *settings) == 0
    for ours, theirs in zip(*(read_log(tmp_path / name, "train") for name in ("true", "false")), strict=True):
        assert ours[TERM] == pytest.approx(theirs[TERM], abs=1e-5)
