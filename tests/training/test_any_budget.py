"""Training that draws its budget at every step, and the switches of memory and speed: through the real command."""

import shutil

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

import stvideo
from stvideo import StvideoError
from stvideo.reduction.budget import draw_budgets, set_budget, training_budgets
from stvideo.training.compiling import check_compiler, compile_model
from tests.reduction.hosts import CLIP, host
from tests.tiny_runs import (
    RANDOM,
    TINY,
    config_file,
    read_log,
    run_command,
    run_here,
    start,
    wait_for,
)

ANY_BUDGET = [
    "model.reduction.evit={layers: [0], keep_rate: 0.5, keep_rate_range: [0.25, 1.0]}",
    "model.reduction.stgm={layers: [1, 2], grids: [[4, 1, 1], [4, 2, 2], [2, 2, 2]], global_centers: true}",
    "evaluate.during_training=1x1",
    "train.epochs=2",
]


@pytest.fixture
def config(tmp_path):
    return config_file(tmp_path)


@pytest.fixture(autouse=True)
def accelerate_forgets_the_precision():
    """Accelerate allows one precision per process."""
    AcceleratorState._reset_state()
    yield
    AcceleratorState._reset_state()


def weights(run):
    """Everything that training has made: weights, their average, the optimiser."""
    folder = (run / "last").resolve()
    state = torch.load(folder / "training_state" / "optimizer.pt", weights_only=True)["optimizer"]["state"]
    found = {f"optimizer.{i}.{key}": value for i, values in state.items() for key, value in values.items()}
    for name in ("model.safetensors", "training_state/weights.safetensors"):
        if (folder / name).exists():
            found |= {f"{name}/{key}": value for key, value in load_file(folder / name).items()}
    return found


def assert_same(run, other):
    first, second = weights(run), weights(other)
    assert first.keys() == second.keys()
    assert [key for key in first if not torch.equal(first[key], second[key])] == []


def test_one_checkpoint_serves_every_budget_and_a_resumed_run_draws_the_same(data, config, tmp_path, capsys):
    arguments = [config, *TINY, *data, *ANY_BUDGET]
    assert run_here("train", *arguments, f"output={tmp_path / 'whole'}", "train.max_steps=7") == 0
    assert "trained for every budget from" in capsys.readouterr().out
    for steps in (3, 7):
        assert run_here("train", *arguments, f"output={tmp_path / 'parts'}", f"train.max_steps={steps}") == 0
    assert_same(tmp_path / "whole", tmp_path / "parts")
    records = [read_log(tmp_path / name, "train") for name in ("whole", "parts")]
    rates, others = ([record["evit/keep_rate"] for record in run] for run in records)
    assert rates == others
    assert len(set(rates)) == 7
    assert all(0.25 <= rate <= 1.0 for rate in rates)
    assert len({record["stgm/tokens_per_slot"] for record in records[0]}) > 1

    model = stvideo.load_model(tmp_path / "whole")

    metadata = model.metadata
    assert metadata["model"]["reduction"]["evit"]["keep_rate_range"] == [0.25, 1.0]
    clip = torch.randn(1, 3, 4, 32, 32)
    budgets = training_budgets(model, count=4)
    costs = set()
    for budget in budgets:
        set_budget(model, budget)
        costs.add(stvideo.count_macs(model, tuple(clip.shape)).total)
        with torch.no_grad():
            assert model.eval()(clip).isfinite().all()
    assert len(costs) == len(budgets) == 12


@pytest.mark.parametrize(
    "switches",
    [
        ["train.fused=false"],
        ["train.ema_decay=0.9", "train.ema_device=cpu"],
        ["train.optimizer=sgd", "train.precision=bf16"],
        ["model.grad_checkpointing=true", "train.clip_grad_norm=1.0"],
    ],
    ids=lambda switches: switches[-1],
)
def test_every_switch_resumes_exactly(data, config, tmp_path, switches):
    arguments = [config, *TINY, *data, *switches, "train.epochs=1", "model.drop_path_rate=0.3"]
    assert run_here("train", *arguments, f"output={tmp_path / 'whole'}") == 0
    assert run_here("train", *arguments, f"output={tmp_path / 'parts'}", "train.max_steps=2") == 0
    assert run_here("train", *arguments, f"output={tmp_path / 'parts'}") == 0
    assert_same(tmp_path / "whole", tmp_path / "parts")


def test_switches_that_change_no_number(data, config, tmp_path):
    arguments = [config, *TINY, *data, "train.epochs=1", "train.ema_decay=0.9", "model.reduction=evit"]
    runs = {"plain": [], "checkpointed": ["model.grad_checkpointing=true"], "device": ["train.ema_device=cpu"]}
    for name, switches in runs.items():
        assert run_here("train", *arguments, *switches, f"output={tmp_path / name}") == 0
    for name in runs:
        for key, value in weights(tmp_path / "plain").items():
            torch.testing.assert_close(weights(tmp_path / name)[key], value, rtol=1e-4, atol=1e-5)


def test_a_device_that_is_not_here_is_one_line(data, config, tmp_path, capsys):
    for name in ("cuda:99", "nonsense"):
        arguments = [config, *TINY, *data, f"output={tmp_path}", "train.ema_decay=0.9", f"train.ema_device={name}"]
        assert run_here("train", *arguments) == 2
        assert f"train.ema_device={name}: no such device here" in capsys.readouterr().err


def test_without_a_compiler_the_run_does_not_start(data, config, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(StvideoError, match="needs a C\\+\\+ compiler and finds no 'no-such-compiler'"):
        check_compiler()
    assert run_here("train", config, *TINY, *data, f"output={tmp_path}", "train.compile=true") == 2
    assert "train.compile=false" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("settings", [RANDOM, ["model.reduction.evit={layers: [1], keep_rate: 0.5, shrink_epochs: 1}"]])
def test_a_killed_compiled_run_equals_the_uninterrupted_one(data, config, tmp_path, settings):
    arguments = [config, *TINY, *settings, *data, "train.compile=true", "train.checkpoint_every_steps=1"]
    whole = run_command("train", *arguments, f"output={tmp_path / 'whole'}", "train.max_steps=6", timeout=500)
    assert whole.returncode == 0, whole.stderr
    process = start(*arguments, f"output={tmp_path / 'parts'}")
    wait_for(process, "step 3/")
    process.kill()
    process.communicate()
    parts = run_command("train", *arguments, f"output={tmp_path / 'parts'}", "train.max_steps=6", timeout=500)
    assert parts.returncode == 0, parts.stderr
    assert_same(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_compiled_training_makes_few_graphs():
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    schedule = dict(layers=[0], keep_rate=0.4, shrink_epochs=5)
    drawn = dict(layers=[1], keep_rate=0.5, keep_rate_range=[0.3, 1.0])
    exact = host("divided", {"evit": schedule}, depth=2).train()
    compiled = host("divided", {"evit": schedule}, depth=2).train()
    compile_model(compiled)
    compiled._compiled_call_impl = torch.compile(compiled._call_impl, backend="eager")  # graphs without their kernels
    clip, rates = torch.randn(CLIP), set()
    for step in range(60):
        for model in (exact, compiled):
            model.reductions["evit"].set_epoch(step / 10)
        rates.add(exact.reductions["evit"].keep_rates)
        compiled(clip).sum().backward()
    assert len(rates) > 50
    assert 6 <= counters["stats"]["unique_graphs"] <= 9
    assert not counters["graph_break"]

    counters.clear()
    compiled = host("divided", {"evit": drawn}, depth=2).train()
    compile_model(compiled)
    compiled._compiled_call_impl = torch.compile(compiled._call_impl, backend="eager")
    for step in range(40):
        draw_budgets(compiled, 0, step)
        compiled(clip).sum().backward()
    assert 6 <= counters["stats"]["unique_graphs"] <= 9
    torch._dynamo.reset()
