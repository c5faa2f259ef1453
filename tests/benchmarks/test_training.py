"""`benchmark train`: the training command's own step, one line for every switch. Nothing here looks at the clock."""

import json

import pytest
import torch
from accelerate.state import AcceleratorState

from stvideo import StvideoError
from stvideo.benchmark import main
from stvideo.benchmarks.training import SWITCHES
from stvideo.benchmarks.training_step import Stepper
from stvideo.settings.config import load_config

TINY = [
    "timesformer_tiny_patch16_224",
    "model.args={embed_dim: 32, depth: 3, num_heads: 2}",
    "model.num_classes=5",
    "data.img_size=32",
    "data.num_frames=2",
    "data.batch_size=4",
]


@pytest.fixture(autouse=True)
def accelerate_forgets_the_precision():
    """Accelerate allows one precision per process."""
    AcceleratorState._reset_state()
    yield
    AcceleratorState._reset_state()


def config(*overrides):
    return load_config(None, [f"model.name={TINY[0]}", *TINY[1:], *overrides])


def test_one_line_for_every_switch(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    own = "+train.optimizer=sgd train.clip_grad_norm=1"
    assert main(["train", *TINY, own, "rounds=2", f"output={tmp_path}"]) == 0
    shown = capsys.readouterr().out
    content = json.loads((tmp_path / "training.json").read_text())
    (section,) = content["sections"]
    rows = {row["switch"].split()[0]: row for row in section["rows"]}
    assert list(rows) == ["default", *SWITCHES, "train.optimizer=sgd"]
    ran = ["checkpointing", "half_batches", "bf16", "plain_update", "plain_layout", "average", "train.optimizer=sgd"]
    for name in ran:
        assert len(rows[name]["rounds"]) == 2
        assert rows[name]["speed"]["low"] <= rows[name]["speed"]["median"] <= rows[name]["speed"]["high"]
        assert rows[name]["clips"] == 4
    if not torch.cuda.is_available():
        assert "needs a GPU" in rows["fp16"]["failure"]
        assert "on the CPU already" in rows["average_on_cpu"]["failure"]
    assert "no-such-compiler" in rows["compile"]["failure"]
    assert rows["half_batches"]["settings"] == ["data.batch_size=2", "train.accumulation_steps=2"]
    weights = rows["default"]["held_mib"] / 3  # AdamW holds two more numbers for each weight
    assert rows["average"]["held_mib"] == pytest.approx(4 * weights, rel=0.01)
    assert rows["train.optimizer=sgd"]["held_mib"] == pytest.approx(2 * weights, rel=0.01)
    assert "cannot run here" in shown
    assert AcceleratorState().mixed_precision == "no"  # the default's, whatever ran last


def test_an_odd_batch_cannot_be_halved(tmp_path):
    arguments = [*TINY, "data.batch_size=1", "switches=half_batches", "rounds=1", f"output={tmp_path}"]
    assert main(["train", *arguments]) == 0
    rows = json.loads((tmp_path / "training.json").read_text())["sections"][0]["rows"]
    assert "cannot be halved" in rows[1]["failure"]
    assert rows[0]["seconds"] > 0


def test_the_step_is_the_one_of_training():
    stepper = Stepper(
        config(
            "model.reduction.evit={layers: [0], keep_rate: 0.5, keep_rate_range: [0.25, 1.0]}",
            "train.ema_decay=0.5",
            "train.accumulation_steps=2",
            "data.mixup=0.8",
        )
    )
    before = {name: value.clone() for name, value in stepper.networks.model.state_dict().items()}
    rates = set()
    for _ in range(4):
        stepper()
        rates.add(stepper.networks.reduction_summary()["evit/keep_rate"])
    moved = [
        name for name, value in stepper.networks.model.state_dict().items() if not torch.equal(value, before[name])
    ]
    assert moved
    assert len(rates) == 4
    assert stepper.steps == 4
    assert stepper.clips_per_step == 8
    assert {group["lr"] for group in stepper.optimizer.param_groups} == {1e-9}
    assert all(p.grad is not None for p in stepper.networks.model.parameters())
    stepper.forget_gradients()
    assert all(p.grad is None for p in stepper.networks.model.parameters())


def test_steppers_of_two_precisions_live_side_by_side():
    full, half = Stepper(config()), Stepper(config("train.precision=bf16"))
    seen = []
    for stepper in (full, half):
        block = stepper.networks.model.blocks[0].mlp.fc1
        block.register_forward_hook(lambda _module, _inputs, output: seen.append(output.dtype))
    for stepper in (full, half, full):
        stepper()
    assert list(dict.fromkeys(seen)) == [torch.float32, torch.bfloat16]
    assert seen[-1] == torch.float32
    assert {p.dtype for p in half.networks.model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "takes one configuration file or model, got 0"),
        ([*TINY, "deit_tiny_patch16_224"], "got 2"),
        (["timesformr_base_patch16_224"], "did you mean 'timesformer_base_patch16_224'"),
        ([*TINY, "switches=chekpointing"], "no such switch.*did you mean 'checkpointing'"),
        ([*TINY, "round=3"], "unknown setting 'round'"),
        ([*TINY, "rounds=0"], "rounds=0: expected 1 or more"),
        ([*TINY, "train.lrr=3"], "unknown key 'train.lrr'"),
        ([*TINY, "data.batch_size=0"], "data.batch_size=0: must be above 0"),
        (["no/such.yaml"], "no such configuration file"),
    ],
)
def test_mistakes(arguments, message):
    with pytest.raises(StvideoError, match=message):
        main(["train", *arguments])


def test_launches_are_not_started_inside_a_launch(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(StvideoError, match="leave it out under torchrun"):
        main(["train", *TINY, "switches=", "processes=1,2"])


@pytest.mark.slow
def test_launches(tmp_path):
    assert main(["train", *TINY, "switches=", "processes=1,2", "rounds=2", f"output={tmp_path}"]) == 0
    launches = json.loads((tmp_path / "training.json").read_text())["sections"][1]["rows"]
    assert [row["clips"] for row in launches] == [4, 8]
    assert all(row["clips_per_second"] > 0 for row in launches)


def test_help_names_every_switch(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    shown = capsys.readouterr().out
    assert all(f"\n    {name} " in shown for name in SWITCHES)
