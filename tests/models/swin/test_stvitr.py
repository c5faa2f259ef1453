"""STViT-R-Swin: equal to the released implementation; recovery, the pyramid and a detector on it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models.detection import MaskRCNN

import stvideo
from stvideo import StvideoError
from stvideo.dense.pyramid import PyramidBackbone
from stvideo.models.swin.semantic import RecoverBlock, max_in_bins
from tests.models.swin_small import gradients, shake, small
from tests.models.swin_textbook import semantic_layer
from tests.parity.reference_weights import reference_clip, reference_state_dict

PARITY = Path(__file__).parents[2] / "parity"
NAME = "stvitr_swin_small_patch4_window7_224"
SMALL = dict(depths=(1, 1, 6, 1))
TABLES = ("relative_position_index", "attn_mask", "num_batches_tracked")


@pytest.fixture(scope="module")
def keys():
    return json.loads((PARITY / "stvitr_swin_small.keys.json").read_text())


def test_equals_the_released_implementation(keys, tmp_path):
    state = reference_state_dict(keys)
    torch.save({"model": state, "epoch": 299}, tmp_path / "stvitr_swin_small.pth")
    model = stvideo.create_model(NAME).eval()
    report = stvideo.load_checkpoint(model, tmp_path / "stvitr_swin_small.pth")
    assert (report.missing, report.unexpected, len(report.matched)) == ([], [], len(state))
    expected = np.load(PARITY / "stvitr_swin_small.npz")
    images = reference_clip(2, 3, 224, 224)
    with torch.no_grad():
        outputs, _ = model.stage_outputs(images)
        stage3 = model.layers[2].downsample(outputs[2]).mean(-1).flatten(1)
        logits = model(images)
    assert np.abs(stage3.numpy() - expected["stage3_out_mean"]).max() < 1e-6  # a mean over 768 channels: a strict test
    assert np.abs(logits.numpy() - expected["logits"]).max() < 1e-4


def test_has_the_released_names_and_shapes_and_takes_its_tables(keys, tmp_path):
    with torch.device("meta"):
        model = stvideo.create_model(NAME)
    own = {name: list(value.shape) for name, value in model.state_dict().items()}
    assert own == {name: shape for name, shape in keys.items() if not name.endswith(TABLES)}


@pytest.mark.parametrize(("size", "parameters"), [("small", 49_625_518), ("base", 87_812_336)])
def test_published_parameters_and_costs(size, parameters):
    with torch.device("meta"):
        model = stvideo.create_model(f"stvitr_swin_{size}_patch4_window7_224")
        dense = stvideo.create_model(f"swin_{size}_patch4_window7_224")
    assert sum(p.numel() for p in model.parameters()) == parameters
    counted, full = (stvideo.count_macs(m, (1, 3, 224, 224)).total for m in (model, dense))
    if size == "small":
        assert 5.61 < counted < 5.83
    assert counted / full - 1 == pytest.approx(-0.35, abs=0.03)  # -33 % where keys are projected window by window


def test_recovery_equals_its_slow_form():
    block = shake(RecoverBlock(8, 2, layer_scale=0.7), 0.3)
    x, s = torch.randn(2, 2, 5, 4, 8), torch.randn(2, 2, 3, 2, 8)
    with torch.no_grad():
        recovered = block(x, s)
        for b in range(2):
            for t in range(2):
                expected, _ = semantic_layer(block.state_dict(), x[b, t].flatten(0, 1), s[b, t].flatten(0, 1), 2)
                assert (recovered[b, t].flatten(0, 1) - expected).abs().max() < 1e-5


def test_patches_wait_unchanged_for_recovery():
    model = small(NAME, **SMALL)
    stage, seen = model.layers[2], {}
    stage.blocks[0].register_forward_hook(lambda _m, _a, out: seen.update(before=out))
    stage.blocks[5].register_forward_pre_hook(lambda _m, args: seen.update(waited=args[0]))
    with torch.no_grad():
        model(torch.randn(1, 3, 64, 96))
    assert torch.equal(seen["before"], seen["waited"])


def test_trace_ends_with_every_patch_its_own_token():
    model = small(NAME, depths=(1, 1, 12, 1))
    with torch.no_grad():
        _, trace = model(torch.randn(2, 3, 224, 160), return_trace=True)
    assert list(trace.assign) == [3, 4, 7, 9, 10, 13, "output"]
    assert trace.method[7] == trace.method[13] == "recovery"
    each = torch.arange(14 * 10).view(1, 1, 14, 10).expand(2, -1, -1, -1)
    for layer in (7, 13, "output"):
        assert torch.equal(trace.assign[layer], each)
    for layer in (4, 10):
        assert trace.assign[layer].max() < 6 * 6 and len(trace.assign[layer][0].unique()) > 1


def test_every_parameter_gets_a_gradient_and_checkpointing_changes_nothing():
    model, image = small(NAME, **SMALL, layer_scale=1.0), torch.randn(4, 3, 64, 64)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.0
    assert torch.allclose(gradients(model, image, False), gradients(model, image, True), atol=1e-4)


@pytest.mark.parametrize("name", [NAME, "swin_small_patch4_window7_224"])
@pytest.mark.parametrize("size", [(224, 224), (101, 67), (40, 333), (17, 17)])
def test_pyramid_of_any_size(name, size):
    model = small(name, **SMALL, features_only=True)
    with torch.no_grad():
        maps = model(torch.randn(2, 3, *size))
        clip_maps = model(torch.randn(1, 3, 3, *size))
    assert list(maps) == ["0", "1", "2", "3"]
    height, width = (-(-length // 4) for length in size)
    for index, (single, several) in enumerate(zip(maps.values(), clip_maps.values(), strict=True)):
        assert single.shape == (2, 12 * 2**index, height, width)
        assert several.shape == (1, 12 * 2**index, 3, height, width)
        assert single.isfinite().all()
        height, width = -(-height // 2), -(-width // 2)


def test_pyramid_has_the_values_of_the_classifier(tmp_path):
    classifier = small(NAME, **SMALL)
    torch.save({"model": classifier.state_dict()}, tmp_path / "stvitr.pth")
    model = small(NAME, **SMALL, features_only=True)
    report = stvideo.load_checkpoint(model, tmp_path / "stvitr.pth")
    assert sorted(report.missing) == sorted(f"norm{i}.{part}" for i in range(4) for part in ("weight", "bias"))
    for index in range(4):
        model.get_submodule(f"norm{index}").reset_parameters()
    image = torch.randn(1, 3, 90, 64)
    with torch.no_grad():
        outputs = classifier.stage_outputs(image)[0]
        for x, level in zip(outputs, model(image).values(), strict=True):
            expected = torch.nn.functional.layer_norm(x[:, 0], x.shape[-1:]).permute(0, 3, 1, 2)
            assert (level - expected).abs().max() < 1e-5


def test_mask_rcnn_learns_on_odd_image_sizes():
    backbone = PyramidBackbone(small(NAME, **SMALL, features_only=True), out_channels=16)
    detector = MaskRCNN(backbone, num_classes=3, min_size=70, max_size=130, rpn_post_nms_top_n_train=50).train()
    images = [torch.rand(3, 61, 93), torch.rand(3, 85, 47)]
    targets = [
        dict(
            boxes=torch.tensor([[5.0, 6.0, 40.0, 44.0]]),
            labels=torch.tensor([1]),
            masks=torch.ones(1, *image.shape[1:], dtype=torch.uint8),
        )
        for image in images
    ]
    losses = detector(images, targets)
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert [name for name, p in backbone.named_parameters() if p.grad is None] == []
    with torch.no_grad():
        found = detector.eval()(images)
    assert [prediction["masks"].shape[-2:] for prediction in found] == [(61, 93), (85, 47)]


@pytest.mark.parametrize(
    ("size", "published"), [((800, 1280), {"small": 134, "base": 233}), ((512, 512), {"small": 34, "base": 60})]
)
def test_cost_as_a_dense_backbone(size, published):
    for name, gmacs in published.items():
        with torch.device("meta"):
            model = stvideo.create_model(f"stvitr_swin_{name}_patch4_window7_224", features_only=True)
        assert stvideo.count_macs(model, (1, 3, *size)).total == pytest.approx(gmacs, rel=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(depths=(2, 2, 8, 2)), "stage 3 has 8 layers, but must be whole units of 6"),
        (dict(tokens_per_window=5), "tokens_per_window must be a square number"),
        (dict(tokens_per_window=100), "larger than the window"),
        (dict(pooling="avg"), "pooling must be one of"),
    ],
)
def test_bad_arguments_are_one_clear_line(options, message):
    with pytest.raises(StvideoError, match=message):
        small(NAME, **{**SMALL, **options})


def test_a_detector_needs_maps():
    with pytest.raises(StvideoError, match="features_only=True"):
        PyramidBackbone(small(NAME, **SMALL))


@pytest.mark.parametrize(("size", "grid"), [((7, 7), (3, 3)), ((13, 9), (3, 5)), ((4, 6), (4, 6)), ((5, 5), (1, 1))])
def test_pooling_for_exporters_is_adaptive_max_pooling(size, grid):
    x = torch.randn(2, 3, *size, 8)
    expected = torch.nn.functional.adaptive_max_pool2d(x.flatten(0, 1).permute(0, 3, 1, 2), grid)
    assert torch.equal(max_in_bins(x, grid), expected.permute(0, 2, 3, 1).unflatten(0, (2, 3)))
