"""Every registered reduction in every kind of model; a new method is found by itself."""

import pytest
import torch

import stvideo
from stvideo.reduction.base import reduction_class
from tests.reduction.hosts import CLIP, KINDS, host

METHODS = stvideo.list_reductions()


def example(method: str, attention: str = "divided"):
    """Options for the small host, where the defaults are for twelve blocks."""
    return reduction_class(method).example(host(attention).reduction_host())


def reduced(attention: str, method: str, **options):
    return host(attention, {method: example(method, attention)}, **options)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("attention", KINDS)
@pytest.mark.parametrize("pool", ["token", "avg"])
def test_forward_and_gradients(attention, method, pool):
    model = reduced(attention, method, global_pool=pool).train()
    logits = model(torch.randn(CLIP))
    assert logits.shape == (2, 7)
    logits.square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("attention", KINDS)
def test_bfloat16(attention, method):
    model = reduced(attention, method)
    clip = torch.randn(CLIP)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert model(clip).isfinite().all()
    with torch.no_grad():
        assert model.bfloat16()(clip.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("attention", KINDS)
@pytest.mark.parametrize("shape", [(1, 3, 3, 40, 24), (3, 3, 7, 56, 32), (1, 3, 2, 24, 24)])
def test_odd_sizes_and_frame_counts(attention, method, shape):
    model = reduced(attention, method)
    with torch.no_grad():
        logits, trace = model(torch.randn(shape), return_trace=True)
    assert logits.shape == (shape[0], 7)
    assert trace.assign["output"].shape == (shape[0], shape[2], shape[3] // 8, shape[4] // 8)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("attention", KINDS)
def test_one_image(attention, method):
    with torch.no_grad():
        assert reduced(attention, method)(torch.randn(1, 3, 32, 32)).shape == (1, 7)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("attention", KINDS)
def test_clips_of_a_batch_do_not_touch_each_other(attention, method):
    model = reduced(attention, method)
    clips = torch.randn(3, 3, 4, 32, 32)
    with torch.no_grad():
        together = model(clips)
        apart = torch.cat([model(clip[None]) for clip in clips])
    assert torch.allclose(together, apart, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("attention", KINDS)
def test_fewer_macs_and_dense_again_after_removal(attention, method):
    dense = host(attention)
    clip = torch.randn(CLIP)
    before = stvideo.count_macs(dense, CLIP).total
    with torch.no_grad():
        expected = dense(clip)
        model = stvideo.apply_reduction(dense, method, **example(method, attention))
        assert model is dense
        assert stvideo.count_macs(model, CLIP).total < before
        assert not torch.allclose(model(clip), expected, atol=1e-4)
        assert torch.equal(stvideo.remove_reduction(model)(clip), expected)
    assert stvideo.count_macs(model, CLIP).total == before


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("attention", KINDS)
def test_a_trace_covers_every_layer_and_the_output(attention, method):
    model = reduced(attention, method)
    clip = torch.randn(CLIP)
    with torch.no_grad():
        torch.manual_seed(3)
        plain = model(clip)
        torch.manual_seed(3)
        logits, trace = model(clip, return_trace=True)
    assert torch.equal(plain, logits)
    assert set(trace.assign) == {*model.reductions[method].layers, "output"}
    for layer, assign in trace.assign.items():
        assert assign.shape == (2, 4, 4, 4)
        assert assign.dtype == torch.int64
        assert not (trace.fused[layer] & (assign < 0)).any()
    assert torch.equal(trace.assign["output"], trace.assign[model.reductions[method].layers[-1]])


@pytest.mark.parametrize("method", METHODS)
def test_a_method_documents_itself(method):
    cls = reduction_class(method)
    assert cls.__doc__ is not None
    assert "Args:" in cls.__doc__
    assert cls.hooks


def test_semantic_tokens_after_class_attention():
    reduction = {
        "evit": dict(keep_rate=0.5, layers=(0, 1)),
        "stgm": dict(layers=(2, 3), grid=(2, 2, 2)),
    }
    for attention in KINDS:
        model = host(attention, reduction).train()
        logits, trace = model(torch.randn(CLIP), return_trace=True)
        logits.sum().backward()
        assert [name for name, p in model.named_parameters() if p.grad is None] == []
        assert list(trace.assign) == [0, 1, 2, 3, "output"]
        assert int(trace.assign["output"].max()) < 8
        fused = trace.fused[1]
        assert fused.any()
        assert torch.equal(trace.fused["output"], fused)


def test_class_attention_after_semantic_tokens():
    reduction = {"stgm": dict(layers=(0, 1), grid=(2, 2, 2)), "evit": dict(keep_rate=0.5, layers=(2,), fuse=False)}
    for attention in KINDS:
        with torch.no_grad():
            logits, trace = host(attention, reduction)(torch.randn(CLIP), return_trace=True)
        assert logits.shape == (2, 7)
        assert (trace.assign["output"] == -1).any()
        assert int(trace.assign["output"].max()) < 4
