"""One optimiser step: what it reads and what it writes."""

import pytest
import torch
from accelerate import Accelerator

import stvideo
from stvideo.core.seeding import step_seed
from stvideo.data.loading.batches import ClipPreparer
from stvideo.reduction.budget import draw_budgets
from stvideo.runtime.sharding import gradient_norm
from stvideo.settings.checks import LARGEST_SEED
from stvideo.settings.config import load_config
from stvideo.settings.schema import DataConfig
from stvideo.training.losses import TrainingLoss
from stvideo.training.networks import Networks
from stvideo.training.step import take_step


def test_every_seed_that_is_allowed_can_be_drawn_from():
    draws = []
    for seed in (LARGEST_SEED - 1, LARGEST_SEED):
        for step in (0, 10_000_000):
            torch.manual_seed(step_seed(seed, step, rank=63))
            draws.append(torch.rand(()).item())
            draw_budgets(torch.nn.Identity(), seed, step)
            ClipPreparer(DataConfig(), torch.device("cpu")).seed(step_seed(seed, step))
    assert len(set(draws)) == 4


@pytest.mark.parametrize("limit", [None, 0.5])
def test_gradients_are_written_to_only_where_they_are_clipped(limit):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3), torch.nn.Linear(3, 3))
    accelerator = Accelerator(cpu=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    versions = []
    model[1].weight.register_post_accumulate_grad_hook(lambda weight: versions.append(weight.grad._version))
    batch = {"video": 100 * torch.randn(4, 3, 1, 2, 2), "label": torch.tensor([0, 1, 2, 0]), "index": torch.arange(4)}
    result = take_step(
        accelerator=accelerator,
        model=model,
        criterion=TrainingLoss(model),
        optimizer=optimizer,
        batches=[batch],
        prepare=lambda each: (each["video"], each["label"]),
        clip_grad_norm=limit,
    )
    norm = gradient_norm(model.parameters()).item()
    if limit is None:
        assert result.grad_norm == pytest.approx(norm)
        assert model[1].weight.grad._version == versions[-1]
    else:
        assert result.grad_norm > limit
        assert norm == pytest.approx(limit, rel=1e-4)
        assert model[1].weight.grad._version > versions[-1]


def test_channels_last_is_a_setting_that_changes_no_number():
    seen, results = {}, {}
    for channels_last in (True, False):
        config = load_config(
            None,
            [
                "model.name=timesformer_tiny_patch16_224",
                "model.args={embed_dim: 32, depth: 3, num_heads: 2}",
                "model.reduction.stgm={layers: [1, 2], grid: [2, 2, 2]}",
                "data.num_frames=2",
                "data.img_size=64",
                f"train.channels_last={channels_last}",
                "train.ema_decay=0.9",
            ],
        )
        model = Networks(config, ["a", "b"], fresh=False, first_clips=None).evaluated
        layouts = seen.setdefault(channels_last, [])
        for module in model.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.Conv3d):
                module.register_forward_pre_hook(lambda _, inputs, to=layouts: to.append(inputs[0].is_contiguous()))
        torch.manual_seed(0)
        with torch.no_grad():
            results[channels_last] = model(torch.randn(2, 3, 2, 64, 64))
    assert not all(seen[True])
    assert all(seen[False])
    torch.testing.assert_close(results[False], results[True], rtol=1e-5, atol=1e-6)
    assert stvideo.settings.schema.TrainConfig().channels_last
