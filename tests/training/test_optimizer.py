"""Parameter groups: every weight once, with the decay and the learning rate that it should have."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import stvideo
from stvideo.settings.schema import TrainConfig
from stvideo.training.optimizer import build_optimizer, load_optimizer, parameter_groups, set_learning_rate


@pytest.fixture(scope="module")
def model():
    return stvideo.create_model(
        "timesformer_tiny_patch16_224",
        num_classes=5,
        num_frames=2,
        img_size=32,
        depth=4,
        embed_dim=32,
        num_heads=2,
        reduction={"stgm": dict(layers=(1, 2), grid=(None, 1, 1))},
    )


def by_name(groups):
    return {name: group for group in groups for name in group["names"]}


def test_every_parameter_is_in_one_group(model):
    groups = parameter_groups(model, weight_decay=0.1, layer_decay=0.5, head_lr_scale=3)
    names = [name for group in groups for name in group["names"]]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())


def test_biases_norms_and_embeddings_are_not_decayed(model):
    groups = by_name(parameter_groups(model, weight_decay=0.1))
    for name, parameter in model.named_parameters():
        exempt = parameter.ndim <= 1 or name in ("pos_embed", "cls_token", "time_embed")
        assert groups[name]["weight_decay"] == (0.0 if exempt else 0.1), name


def test_layer_decay_falls_towards_the_input(model):
    groups = by_name(parameter_groups(model, weight_decay=0.1, layer_decay=0.5, head_lr_scale=3))
    scales = [groups[f"blocks.{i}.mlp.fc1.weight"]["lr_scale"] for i in range(4)]
    assert all(b == pytest.approx(2 * a) for a, b in pairwise(scales))
    assert groups["patch_embed.proj.weight"]["lr_scale"] < scales[0]
    assert groups["head.weight"]["lr_scale"] == pytest.approx(3.0)
    assert groups["reductions.stgm.gate.proj.weight"]["lr_scale"] == pytest.approx(1.0)  # new weights learn fully


def test_the_scale_survives_the_schedule(model):
    optimizer = build_optimizer(model, TrainConfig(head_lr_scale=10.0), lr=1.0)
    set_learning_rate(optimizer.param_groups, 0.02)
    rates = {group["lr"] for group in optimizer.param_groups}
    assert sorted(rates) == pytest.approx([0.02, 0.2])


@pytest.mark.parametrize(("name", "kind"), [("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)])
def test_optimizers_by_name(model, name, kind):
    assert isinstance(build_optimizer(model, TrainConfig(optimizer=name), lr=1.0), kind)


def test_settings_changed_since_the_checkpoint_count(model):
    saved = build_optimizer(model, TrainConfig(weight_decay=0.3, betas=[0.8, 0.9]), lr=1.0).state_dict()
    optimizer = build_optimizer(model, TrainConfig(weight_decay=0.1), lr=1.0)
    load_optimizer(optimizer, saved, "adamw", TrainConfig(), Path("run"))
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 0.1}
    assert all(group["betas"] == (0.9, 0.999) for group in optimizer.param_groups)


@pytest.mark.parametrize("then", [True, False])
@pytest.mark.parametrize("now", [True, False])
def test_counts_of_steps_go_where_the_update_wants_them(then, now):
    """A fused update on a GPU reads them there, torch's ordinary one on the host; no GPU is needed to see where."""
    layer = torch.nn.Linear(3, 2)
    optimizer = build_optimizer(layer, TrainConfig(fused=then), lr=1.0)
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    saved = optimizer.state_dict()
    with FakeTensorMode(allow_non_fake_inputs=True):
        layer = torch.nn.Linear(3, 2, device="cuda")
        optimizer = build_optimizer(layer, TrainConfig(fused=now), lr=1.0, device=torch.device("cuda"))
        load_optimizer(optimizer, saved, "adamw", TrainConfig(fused=now), Path("run"))
    for state in optimizer.state.values():
        assert state["exp_avg"].device.type == "cuda"
        assert state["step"].device.type == ("cuda" if now else "cpu")
