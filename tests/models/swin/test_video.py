"""Video Swin: parity with torchvision, published costs, semantic tokens per frame, dense weights as a start."""

import pytest
import torch
import torchvision

import stvideo
from stvideo import StvideoError
from stvideo.models.swin.dense_start import merging_to_projection
from stvideo.models.swin.layers import PatchMerging
from tests.models.swin_small import gradients, shake, small

DENSE, SEMANTIC = "video_swin_tiny", "stvit_video_swin_tiny"
SMALL = dict(depths=(1, 1, 6, 2), num_frames=8)


@pytest.fixture(scope="module")
def swin3d(tmp_path_factory):
    torch.manual_seed(0)
    reference = shake(torchvision.models.video.swin3d_t(), 0.05)
    path = tmp_path_factory.mktemp("swin3d") / "swin3d_t.pth"
    torch.save(reference.state_dict(), path)
    return reference, path


@pytest.mark.parametrize(
    "shape", [(1, 3, 4, 224, 224), (2, 3, 7, 112, 112), (1, 3, 18, 100, 70), (1, 3, 34, 33, 65), (1, 3, 1, 40, 40)]
)
def test_same_logits_as_torchvision(swin3d, shape):
    reference, path = swin3d
    model = stvideo.create_model(DENSE, num_classes=400).eval()
    report = stvideo.load_checkpoint(model, path)
    assert (report.missing, report.unexpected) == ([], [])
    clip = torch.randn(shape)
    with torch.no_grad():
        assert (model(clip) - reference(clip)).abs().max() < 1e-4


PUBLISHED = {"tiny": 88, "small": 166, "base": 282}


@pytest.mark.parametrize("size", PUBLISHED)
def test_published_costs(size):
    with torch.device("meta"):
        dense = stvideo.create_model(f"video_swin_{size}_patch244_window877_224")
        semantic = stvideo.create_model(f"stvit_video_swin_{size}")
    full, counted = (stvideo.count_macs(model, (1, 3, 32, 224, 224)).total for model in (dense, semantic))
    assert full == pytest.approx(PUBLISHED[size], rel=0.01)
    assert counted / full - 1 == pytest.approx(-0.27, abs=0.01)


def test_pyramid_of_clips():
    model = small(DENSE, **SMALL, features_only=True)
    with torch.no_grad():
        maps = model(torch.randn(2, 3, 7, 70, 33))
    assert [tuple(x.shape) for x in maps.values()] == [
        (2, 12, 4, 18, 9),
        (2, 24, 4, 9, 5),
        (2, 48, 4, 5, 3),
        (2, 96, 4, 3, 2),
    ]


def test_autocast_trains():
    model = small(SEMANTIC, **SMALL).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(torch.randn(2, 3, 8, 64, 64)).float().square().sum()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_other_class_counts_keep_their_head(swin3d):
    model = stvideo.create_model(DENSE, num_classes=5)
    report = stvideo.load_checkpoint(model, swin3d[1])
    assert report.missing == ["head.weight", "head.bias"]
    assert report.fresh_head


def test_a_file_for_another_size_is_one_clear_line(swin3d):
    with pytest.raises(StvideoError, match=r"of its weights are missing, e.g. layers.2.blocks.6"):
        stvideo.load_checkpoint(stvideo.create_model("video_swin_small"), swin3d[1])


@pytest.mark.parametrize("shape", [(1, 3, 8, 64, 64), (2, 3, 5, 130, 40), (1, 3, 64, 64), (1, 3, 21, 32, 32)])
def test_tokens_per_frame_and_trace_at_any_size(shape):
    model = small(SEMANTIC, **SMALL)
    with torch.no_grad():
        logits, trace = model(torch.randn(shape), return_trace=True)
    frames = -(-(shape[2] if len(shape) == 5 else 1) // 2)
    grid = (frames, *(-(-length // 16) for length in shape[-2:]))
    assert logits.isfinite().all()
    assert list(trace.assign) == [4, 5, "output"]
    assign = trace.assign["output"]
    assert assign.shape == (shape[0], *grid)
    per_frame = 9 * -(-grid[1] // 7) * -(-grid[2] // 7)
    frame_of_token = assign // per_frame  # every frame keeps its own tokens
    assert torch.equal(frame_of_token, torch.arange(frames).view(1, -1, 1, 1).expand_as(assign))


def test_semantic_layers_see_through_time():
    model = small(SEMANTIC, **SMALL, layer_scale=1.0)
    x = torch.randn(1, 4, 6, 6, 48)
    moved = x.clone()
    moved[:, 3] = torch.randn(6, 6, 48)
    for block in model.layers[2].blocks[4:]:
        with torch.no_grad():
            assert (block(x) - block(moved))[:, 0].abs().max() > 1e-4


def test_every_parameter_gets_a_gradient_and_checkpointing_changes_nothing():
    clip = torch.randn(2, 3, 8, 64, 64)
    for name in (DENSE, SEMANTIC):
        model = small(name, **SMALL, **(dict(layer_scale=1.0) if name == SEMANTIC else {}))
        # A window of full size is needed for every row of the position tables to be used.
        model_clip = clip if name == SEMANTIC else torch.randn(2, 3, 18, 64, 64)
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith("relative_position_bias_table"):
                parameter.data.normal_()
        assert torch.allclose(gradients(model, model_clip, False), gradients(model, model_clip, True), atol=1e-4)


def test_dense_weights_start_the_semantic_model(tmp_path):
    dense = small(DENSE, **SMALL)
    torch.save(dense.state_dict(), tmp_path / "dense.pth")
    model = small(SEMANTIC, **SMALL, layer_scale=1.0)
    report = stvideo.load_checkpoint(model, tmp_path / "dense.pth")
    assert all(".centers." in name or ".layer_scale_" in name for name in report.missing)
    assert report.unexpected == []
    x = torch.randn(1, 9, 24 * 2)
    for number in (2, 5):
        attn, source = model.layers[2].blocks[number].attn, dense.layers[2].blocks[number].attn
        with torch.no_grad():
            assert torch.allclose(torch.cat((attn.q(x), attn.kv(x)), -1), source.qkv(x), atol=1e-6)
    with torch.no_grad():
        assert torch.equal(model.layers[1](x.new_ones(1, 2, 8, 8, 24)), dense.layers[1](x.new_ones(1, 2, 8, 8, 24)))


def test_projection_does_what_merging_does_to_equal_neighbours():
    merging, projection = shake(PatchMerging(6)), PatchMerging(6, side=1)
    merging.norm.bias.data.zero_()
    state = {f"layers.2.downsample.{name}": value for name, value in merging.state_dict().items()}
    converted = merging_to_projection(state, "layers.2.downsample")
    projection.load_state_dict({name.removeprefix("layers.2.downsample."): value for name, value in converted.items()})
    x = torch.randn(1, 2, 3, 2, 6)
    with torch.no_grad():
        expected = merging(x.repeat_interleave(2, 2).repeat_interleave(2, 3))
        assert (projection(x) - expected).abs().max() < 1e-5
    assert merging_to_projection(converted, "layers.2.downsample") is converted


def test_bfloat16():
    for name in (DENSE, SEMANTIC):
        model, clip = small(name, **SMALL), torch.randn(1, 3, 6, 64, 48)
        with torch.no_grad():
            expected = model(clip)
            assert (model.bfloat16()(clip.bfloat16()).float() - expected).abs().max() < 0.1


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (DENSE, dict(window_frames=0), "window_frames 0"),
        (DENSE, dict(patch_frames=0), "patch_frames 0"),
        (SEMANTIC, dict(tokens_per_window=12), "square number"),
        (SEMANTIC, dict(features_only=True), "use a model with recovery"),
    ],
)
def test_bad_arguments_are_one_clear_line(name, options, message):
    with pytest.raises(StvideoError, match=message):
        small(name, **SMALL, **options)
