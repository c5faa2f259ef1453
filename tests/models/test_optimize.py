"""Models optimised for inference, and batches that go through in slices: the same logits, sooner."""

import pytest
import torch

import stvideo
from stvideo.models import vit
from stvideo.weights.saving import save_model
from tests.reduction.hosts import CLIP, KINDS, host
from tests.reduction.test_every_combination import METHODS, reduced

CASES = [(attention, method) for attention in KINDS for method in METHODS]


@pytest.mark.parametrize("attention, method", CASES)
@pytest.mark.parametrize("batch", [1, 2])
def test_optimized_equals_plain(attention, method, batch):
    model = reduced(attention, method, layer_scale=0.3, residual_scale=0.5, drop_path_rate=0.2)
    clip = torch.randn(batch, *CLIP[1:])
    outputs = []
    for network in (model, model.optimize_for_inference()):
        torch.manual_seed(2)  # "random" draws the tokens it keeps
        with torch.no_grad():
            outputs.append(network(clip))
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)


def test_trace_and_frame_scope_survive():
    model = host("divided", {"evit": dict(keep_rate=0.5, scope="frame")})
    clip = torch.randn(CLIP)
    with torch.no_grad():
        logits, trace = model(clip, return_trace=True)
        fast_logits, fast_trace = model.optimize_for_inference()(clip, return_trace=True)
    torch.testing.assert_close(fast_logits, logits, atol=1e-5, rtol=1e-5)
    assert all(torch.equal(fast_trace.assign[layer], trace.assign[layer]) for layer in trace.assign)


@pytest.mark.parametrize("name", ["evit_lvvit_small_patch16_224", "stvit_swin_tiny_patch4_window7_224"])
def test_other_families(name):
    torch.manual_seed(0)
    model = stvideo.create_model(name, num_classes=5).eval()
    clip = torch.randn(1, 3, 1, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(model.optimize_for_inference()(clip), model(clip), atol=1e-4, rtol=1e-4)


def test_one_projection_less_per_block():
    model = host("divided")
    fast = model.optimize_for_inference()
    tokens = 4 * 4 * 4
    saved = sum(tokens * 32 * 32 for _ in model.blocks) / 1e9
    before, after = (stvideo.count_macs(m, (1, *CLIP[1:])).total for m in (model, fast))
    assert before - after == pytest.approx(saved)


def test_the_model_itself_stays_trainable(tmp_path):
    model = host("divided").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fast = model.optimize_for_inference()
    assert model.training
    assert not fast.training
    assert not any(p.requires_grad for p in fast.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model(torch.randn(CLIP)).sum().backward()
    with pytest.raises(stvideo.StvideoError, match="save the one it came from"):
        save_model(tmp_path / "model.safetensors", fast, {})


def test_optimizing_twice_changes_nothing():
    model = host("divided", layer_scale=0.3)
    clip = torch.randn(CLIP)
    once = model.optimize_for_inference()
    with torch.no_grad():
        assert torch.equal(once.optimize_for_inference()(clip), once(clip))


@pytest.mark.parametrize("name", ["timesformer", "swin"])
def test_bfloat16_takes_float32_clips(name):
    torch.manual_seed(0)
    if name == "swin":
        model, clip = (
            stvideo.create_model("swin_tiny_patch4_window7_224", num_classes=7).eval(),
            torch.randn(1, 3, 224, 224),
        )
    else:
        model = host("divided", {"stgm": dict(layers=(1, 2), grid=(2, 2, 2))})
        clip = torch.randn(CLIP)
    with torch.no_grad():
        logits = model.optimize_for_inference(dtype=torch.bfloat16)(clip)
        assert logits.dtype == torch.bfloat16
        assert (logits.float() - model(clip)).abs().max() < 0.1 * model(clip).abs().max()


def passes_of(model):
    """The clips in each call of every block from now on, block by block."""
    passes = [[] for _ in model.blocks]
    for calls, block in zip(passes, model.blocks, strict=True):
        block.register_forward_pre_hook(lambda module, args, calls=calls: calls.append(args[0].patches.shape[0]))
    return passes


@pytest.mark.parametrize("attention", KINDS)
@pytest.mark.parametrize("scope", ["tube", "own"])
def test_slices_of_a_batch_equal_the_whole(attention, scope, monkeypatch):
    own = {} if scope == "tube" else dict(scope="clip" if attention == "joint" else "frame")
    model = host(attention, {"evit": dict(keep_rate=0.5, layers=(1, 2), **own)})
    clip = torch.randn(5, *CLIP[1:])
    with torch.no_grad():
        whole = model(clip)
        monkeypatch.setattr(vit, "CACHED_BYTES", 2 * 4 * 64 * 128)  # two clips of 64 patches, hidden width 128
        passes = passes_of(model)
        sliced = model(clip)
    assert passes == [[2, 2, 1], [2, 2, 1], [3, 2], [5]]  # fewer tokens, more clips
    torch.testing.assert_close(sliced, whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", ["stgm", "stvitr"])
def test_slices_around_replaced_blocks(method, monkeypatch):
    model = reduced("divided", method)
    clip = torch.randn(5, *CLIP[1:])
    with torch.no_grad():
        whole = model(clip)
        monkeypatch.setattr(vit, "CACHED_BYTES", 2 * 4 * 64 * 128)
        torch.testing.assert_close(model(clip), whole, atol=1e-5, rtol=1e-5)


def test_gradients_and_training_are_never_sliced(monkeypatch):
    model = host("divided")
    monkeypatch.setattr(vit, "CACHED_BYTES", 1)
    passes = passes_of(model)
    model(torch.randn(CLIP))
    with torch.no_grad():
        model.train()(torch.randn(CLIP))
    assert passes == [[2, 2]] * 4
