"""TimeSformer: parity with the reference outputs, with the textbook form, and its sizes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import stvideo
from stvideo import StvideoError
from tests.parity.reference_weights import reference_clip, reference_state_dict
from tests.textbook import timesformer

PARITY = Path(__file__).parents[1] / "parity"
SMALL = dict(embed_dim=32, depth=3, num_heads=4, patch_size=8, img_size=32, num_frames=4, num_classes=7)


def small(attention: str, **options):
    """A small model whose every weight is random, zero-initialised ones too, and the same every time."""
    torch.manual_seed(0)
    model = stvideo.create_model("timesformer_base_patch16_224", attention=attention, **{**SMALL, **options})
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@pytest.fixture(scope="module")
def base_state():
    return reference_state_dict(json.loads((PARITY / "timesformer_divided_space_time.keys.json").read_text()))


def test_base_divided_equals_the_reference_implementation(base_state, tmp_path):
    torch.save({"model_state": {f"model.{k}": v for k, v in base_state.items()}, "epoch": 15}, tmp_path / "k400.pyth")
    model = stvideo.create_model(
        "timesformer_base_patch16_224", num_classes=400, num_frames=8, checkpoint=tmp_path / "k400.pyth"
    ).eval()
    expected = np.load(PARITY / "timesformer_divided_space_time.npz")["logits"]
    with torch.no_grad():
        logits = model(reference_clip(1, 3, 8, 224, 224)).numpy()
    assert np.abs(logits - expected).max() < 1e-4
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(121.6e6, rel=1e-3)


@pytest.mark.parametrize("attention", ["divided", "joint", "space"])
def test_equals_the_textbook_form(attention):
    model = small(attention)
    clips = reference_clip(2, 3, 4, 32, 32)
    with torch.no_grad():
        logits = model(clips)
        expected = torch.stack([timesformer(model.state_dict(), clip, 8, 4, attention) for clip in clips])
    assert (logits - expected).abs().max() < 1e-4


@pytest.mark.parametrize("attention", ["divided", "joint", "space"])
@pytest.mark.parametrize("shape", [(1, 3, 1, 32, 32), (2, 3, 3, 24, 40), (1, 3, 7, 48, 32), (1, 3, 8, 40)])
def test_takes_frame_count_and_size_from_the_input(attention, shape):
    logits = small(attention)(torch.randn(shape if len(shape) == 5 else (1, 3, 40, 40)))
    assert logits.shape == (shape[0], 7)
    assert logits.isfinite().all()


def test_an_image_is_a_clip_of_one_frame():
    model = small("divided")
    image = torch.randn(2, 3, 32, 32)
    assert torch.equal(model(image), model(image.unsqueeze(2)))


def test_frames_in_another_order_change_divided_and_joint_attention_only():
    clip = torch.randn(1, 3, 4, 32, 32)
    backwards = clip.flip(2)
    for attention, same in (("divided", False), ("joint", False), ("space", True)):
        model = small(attention)
        assert torch.allclose(model(clip), model(backwards), atol=1e-5) is same


@pytest.mark.parametrize("attention", ["divided", "joint", "space"])
@pytest.mark.parametrize("pool", ["token", "avg"])
def test_every_parameter_gets_a_gradient(attention, pool):
    model = small(attention, global_pool=pool).train()
    model(torch.randn(2, 3, 4, 32, 32)).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_gradient_checkpointing_changes_nothing():
    clip = torch.randn(2, 3, 4, 32, 32)
    gradients = []
    for enable in (False, True):
        model = small("divided", reduction={"evit": dict(keep_rate=0.5, layers=(1,))}).train()
        model.set_grad_checkpointing(enable)
        model(clip).square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert torch.allclose(*gradients, atol=1e-6)


def test_drop_path_drops_whole_branches_per_clip_and_only_in_training():
    model = small("divided", drop_path_rate=0.5)
    clip = torch.randn(1, 3, 4, 32, 32).expand(16, -1, -1, -1, -1)
    assert torch.allclose(model.eval()(clip)[0], model(clip)[1])
    assert not torch.allclose(model.train()(clip)[0], model(clip)[1])


def test_published_initialisation_starts_as_a_spatial_model():
    model = stvideo.create_model("timesformer_base_patch16_224", **SMALL)
    assert model.time_embed.abs().sum() == 0
    sums = [float(block.temporal_fc.weight.detach().abs().sum()) for block in model.blocks]
    assert sums[0] > 0
    assert sums[1:] == [0, 0]


def test_scratch_initialisation_lets_positions_be_seen():
    model = stvideo.create_model("timesformer_base_patch16_224", weight_init="scratch", **SMALL)
    for embedding in (model.pos_embed, model.time_embed):
        assert 0.4 < float(embedding.detach().std()) < 0.6
    assert all(float(block.temporal_fc.weight.detach().abs().sum()) > 0 for block in model.blocks)
    assert float(model.patch_embed.proj.weight.detach().std()) > 0.02


@pytest.mark.parametrize(("size", "millions"), [("tiny", 7.7), ("small", 30.4), ("base", 121.3), ("large", 429)])
def test_named_sizes(size, millions):
    with torch.device("meta"):
        model = stvideo.create_model(f"timesformer_{size}_patch16_224", num_classes=0)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.02)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 4, 30, 32), "not divisible by the patch size 8"),
        ((1, 4, 4, 32, 32), "shape"),
        ((3, 32, 32), "shape"),
        ((1, 3, 0, 32, 32), "shape"),
    ],
)
def test_a_clip_of_wrong_dimensions_is_one_clear_line(shape, message):
    with pytest.raises(StvideoError, match=message) as caught:
        small("divided")(torch.zeros(shape))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        dict(attention="diagonal"),
        dict(img_size=33),
        dict(img_size="big"),
        dict(num_heads=5),
        dict(num_frames=0),
        dict(global_pool="max"),
        dict(global_pool="token", class_token=False),
        dict(weight_init="best"),
        dict(embed_dims=3),
    ],
)
def test_wrong_arguments_are_one_clear_line(options):
    with pytest.raises(StvideoError) as caught:
        stvideo.create_model("timesformer_base_patch16_224", **{**SMALL, **options})
    assert "\n" not in str(caught.value)
