"""Swin: parity with timm and torchvision, windows against their definition, any size, errors."""

import re

import pytest
import timm
import torch
import torchvision

import stvideo
from stvideo import StvideoError
from stvideo.models.swin.layers import SwinBlock
from stvideo.weights.layouts import convert_layout
from tests.models.swin_small import TINY, gradients, shake, small
from tests.models.swin_textbook import swin_block

NAME = "swin_tiny_patch4_window7_224"


@pytest.mark.parametrize(
    ("window", "size"),
    [
        ((1, 7, 7), (1, 14, 14)),
        ((1, 7, 7), (2, 9, 16)),
        ((1, 7, 7), (1, 5, 11)),
        ((2, 3, 3), (5, 7, 4)),
        ((8, 3, 3), (3, 4, 6)),
    ],
)
@pytest.mark.parametrize("shifted", [False, True])
def test_windows_equal_their_definition(window, size, shifted):
    block = shake(SwinBlock(8, 2, window=window, shifted=shifted))
    x = torch.randn(2, *size, 8)
    with torch.no_grad():
        expected = torch.stack([swin_block(block.state_dict(), clip, window, shifted, 2) for clip in x])
        assert (block(x) - expected).abs().max() < 1e-5


def test_same_logits_as_timm(tmp_path):
    reference = shake(timm.create_model(NAME), 0.02)
    torch.save({"model": reference.state_dict()}, tmp_path / "swin.pth")
    model = stvideo.create_model(NAME).eval()
    report = stvideo.load_checkpoint(model, tmp_path / "swin.pth")
    assert (report.missing, report.unexpected) == ([], [])
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        assert (model(image) - reference(image)).abs().max() < 1e-4


def test_same_logits_as_torchvision_at_any_size(tmp_path):
    reference = shake(torchvision.models.swin_t(num_classes=5), 0.02)
    torch.save(reference.state_dict(), tmp_path / "swin.pth")
    model = stvideo.create_model(NAME, num_classes=5, checkpoint=tmp_path / "swin.pth").eval()
    image = torch.randn(1, 3, 300, 260)
    with torch.no_grad():
        assert (model(image) - reference(image)).abs().max() < 1e-4


def test_official_files_load_and_carry_tables_that_do_not_matter(tmp_path):
    model = small(NAME)
    state = model.state_dict() | {
        "layers.0.blocks.1.attn_mask": torch.zeros(64, 49, 49),
        "layers.0.blocks.0.attn.relative_position_index": torch.zeros(49, 49, dtype=torch.long),
    }
    torch.save({"model": state}, tmp_path / "official.pth")
    other = stvideo.create_model(NAME, **TINY)
    report = stvideo.load_checkpoint(other, tmp_path / "official.pth")
    assert (report.missing, report.unexpected) == ([], [])
    image = torch.randn(1, 3, 64, 64)
    assert torch.equal(other.eval()(image), model(image))


def test_conversion_leaves_our_names_alone():
    state = stvideo.create_model(NAME, **TINY).state_dict()
    assert list(convert_layout(state)) == list(state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(embed_dim=24), r"patch_embed.proj.weight is 12x3x4x4 in the file and 24x3x4x4"),
        (dict(depths=(2, 2, 4, 2)), r"of its weights are missing, e.g. layers.2.blocks.2"),
        (dict(depths=(2, 1, 2, 2)), r"block weights that the model lacks, e.g. layers.1.blocks.1"),
    ],
)
def test_a_checkpoint_of_another_shape_is_one_clear_line(options, message, tmp_path):
    torch.save(small(NAME).state_dict(), tmp_path / "a.pth")
    with pytest.raises(StvideoError, match=message) as error:
        stvideo.load_checkpoint(stvideo.create_model(NAME, **{**TINY, **options}), tmp_path / "a.pth")
    assert "\n" not in str(error.value)


def test_images_clips_of_one_frame_and_averaged_frames():
    model = small(NAME)
    images = torch.randn(2, 3, 64, 48)
    with torch.no_grad():
        logits = model(images)
        assert torch.equal(logits, model(images.unsqueeze(2)))
        clip = model(images.transpose(0, 1).unsqueeze(0))
        expected = model.head((model.forward_head(model.forward_features(images), pre_logits=True)).mean(0))
    assert (clip[0] - expected).abs().max() < 1e-5


@pytest.mark.parametrize("size", [(224, 224), (31, 5), (57, 130), (4, 4), (1, 300)])
def test_takes_any_size(size):
    model = small(NAME)
    with torch.no_grad():
        assert model(torch.randn(1, 3, *size)).isfinite().all()


def test_dense_trace_has_only_the_output():
    model = small(NAME)
    with torch.no_grad():
        _, trace = model(torch.randn(2, 3, 64, 96), return_trace=True)
    assert list(trace.assign) == ["output"]
    assert torch.equal(trace.assign["output"][0].flatten(), torch.arange(4 * 6))


def test_every_parameter_gets_a_gradient_and_checkpointing_changes_nothing():
    model, image = small(NAME), torch.randn(2, 3, 64, 64)
    assert torch.allclose(gradients(model, image, False), gradients(model, image, True), atol=1e-5)


def test_drop_path_and_dropout_only_in_training():
    model = small(NAME, drop_path_rate=0.5, drop_rate=0.2)
    images = torch.randn(1, 3, 64, 64).expand(8, -1, -1, -1)
    assert torch.allclose(model(images)[0], model(images)[1], atol=1e-6)
    model.train()
    assert not torch.allclose(model(images)[0], model(images)[1], atol=1e-6)
    rates = [block.drop_path.rate for stage in model.layers for block in stage.blocks]
    assert rates[0] == 0 and rates[-1] == 0.5 and rates == sorted(rates)


def test_bfloat16():
    model = small(NAME)
    image = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        expected = model(image)
        logits = model.bfloat16()(image.bfloat16())
    assert logits.dtype == torch.bfloat16
    assert (logits.float() - expected).abs().max() < 0.05 * expected.abs().max() + 0.02


@pytest.mark.parametrize(
    ("size", "parameters", "gmacs"), [("tiny", 28_288_354, 4.5), ("small", 49_606_258, 8.7), ("base", 87_768_224, 15.4)]
)
def test_published_sizes(size, parameters, gmacs):
    with torch.device("meta"):
        model = stvideo.create_model(f"swin_{size}_patch4_window7_224")
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert stvideo.count_macs(model, (1, 3, 224, 224)).total == pytest.approx(gmacs, rel=0.02)


def test_parameter_groups_rise_with_depth():
    model = stvideo.create_model(NAME, **TINY)
    layers = timm.models.group_parameters(model, model.group_matcher(), reverse=True)
    assert layers["patch_embed.proj.weight"] == 0
    order = ["layers.0.blocks.1.norm1.weight", "layers.0.downsample.norm.weight", "layers.1.blocks.0.norm1.weight"]
    assert [layers[n] for n in order] == sorted({layers[n] for n in order})
    assert all(name in dict(model.named_parameters()) for name in model.no_weight_decay())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(img_size=(0, 4)), "img_size must be positive"),
        (dict(img_size="big"), "img_size must be a number"),
        (dict(num_heads=(1, 2, 5, 4)), "stage 2: 48 channels are not divisible by 5 heads"),
        (dict(num_heads=(1, 2)), "one number per stage"),
        (dict(window_size=0), "window_size 0 must be positive"),
        (dict(num_frames=0), "num_frames 0"),
        (dict(weight_init="best"), "weight_init must be one of"),
        (dict(tokens_per_window=9), "unknown argument 'tokens_per_window'"),
        (dict(reduction="evit"), "takes no token reductions"),
        (dict(attention="joint"), "unknown argument 'attention'"),
    ],
)
def test_bad_arguments_are_one_clear_line(options, message):
    with pytest.raises(StvideoError, match=message) as error:
        stvideo.create_model(NAME, **{**TINY, **options})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 1, 64, 64), (1, 4, 2, 64, 64), (0, 3, 64, 64), (1, 3, 0, 64)])
def test_bad_clips_are_one_clear_line(shape):
    model = stvideo.create_model(NAME, **TINY)
    with pytest.raises(StvideoError, match=re.escape(str(shape if len(shape) != 4 else (*shape[:2], 1, *shape[2:])))):
        model(torch.zeros(shape))
