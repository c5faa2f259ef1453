"""FSDP with everything that a recipe combines: it trains like DDP, and each continues what the other began."""

import pytest
import torch

from tests.tiny_runs import TINY, read_log, run_here, state_of
from tests.training.test_processes import finish, sharded, two_processes

STEPS = 4  # of two an epoch
EVIT = "model.reduction.evit={layers: [1], keep_rate: 0.5, shrink_epochs: 2}"
FROZEN = "train.freeze=[patch_embed,blocks.0,blocks.1.mlp]"
COMMON = [
    *TINY,
    "data.batch_size=2",
    "train.accumulation_steps=2",
    "data.flip=false",
    "model.drop_path_rate=0.2",
    "train.clip_grad_norm=1.0",
    "train.epochs=20",
]
CASES = {
    "stgm": ["model.reduction.stgm={layers: [1, 2], grid: [4, 1, 1]}"],
    "evit": [EVIT],
    "bf16": ["train.precision=bf16"],
    "frozen": [FROZEN],
    "teacher": ["train.teacher=DENSE"],
    "average": ["train.ema_decay=0.9"],
    "checkpointing": ["model.grad_checkpointing=true"],
    "no_clipping": ["train.clip_grad_norm=null"],
    "all": [EVIT, FROZEN, "train.precision=bf16", "train.teacher=DENSE", "train.ema_decay=0.9"],
}


@pytest.fixture(scope="module")
def dense(data, config, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "dense"
    assert run_here("train", config, *TINY, *data, f"output={run}", "train.max_steps=1") == 0
    return run


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_fsdp_and_ddp_train_alike_and_continue_one_another(data, config, dense, tmp_path, case):
    settings = [text.replace("DENSE", str(dense)) for text in CASES[case]]
    arguments = [config, *COMMON, *data, *settings]
    whole, mixed = tmp_path / "whole", tmp_path / "mixed"
    finish(two_processes(*arguments, f"output={whole}", f"train.max_steps={STEPS}"))
    for steps, fsdp in ((2, True), (3, False), (STEPS, True)):
        some = [*arguments, f"output={mixed}", f"train.max_steps={steps}"]
        if fsdp:
            done = sharded(*some)
            assert done.returncode == 0, done.stderr
        else:
            finish(two_processes(*some))
    tolerance = 2e-2 if "train.precision=bf16" in settings else 1e-4  # FSDP also adds up its gradients in bf16
    for ours, theirs in zip(read_log(mixed, "train"), read_log(whole, "train"), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=tolerance)
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=tolerance)
    expected, found = state_of(whole, STEPS), state_of(mixed, STEPS)
    assert {name: (value.shape, value.dtype) for name, value in found.items()} == {
        name: (value.shape, value.dtype) for name, value in expected.items()
    }
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=tolerance)
