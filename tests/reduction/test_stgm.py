"""The semantic token generation module against its formulas written out, and its rules."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import stvideo
from stvideo import StvideoError
from stvideo.core.tokens import Tokens
from stvideo.core.trace import TokenTrace
from stvideo.reduction.windows import adaptive_bins, slot_frames, space_membership, window_pool
from stvideo.weights.loading import load_checkpoint
from stvideo.weights.saving import save_model
from tests.reduction.hosts import CLIP, host
from tests.textbook import stgm_divided


@pytest.mark.parametrize("grid", [(4, 2, 2), (2, 2, 2), (3, 2, 3), (1, 1, 1), (None, 3, 2)])
@pytest.mark.parametrize("layers", [(1, 2), (0, 1, 2)])
def test_equals_the_textbook_form(grid, layers):
    model = host("divided", {"stgm": dict(layers=layers, grid=grid)})
    module, blocks = model.reductions["stgm"], [model.blocks[i] for i in layers]
    torch.manual_seed(5)
    patches, cls = torch.randn(2, 4, 16, 32), torch.randn(2, 1, 1, 32)
    tokens = Tokens(patches=patches, prefix=cls, grid=(4, 4, 4), trace=TokenTrace.start(2, (4, 4, 4), patches.device))
    with torch.no_grad():
        out = module("replace", layers[0], tokens, blocks)
        slots = grid[0] or 4
        assert out.grid == (slots, *grid[1:])
        for b in range(2):
            names = [f"blocks.{i}" for i in layers]
            expected_cls, expected, maps = stgm_divided(
                model.state_dict(), "reductions.stgm", names, cls[b, 0, 0], patches[b], (4, 4), (slots, *grid[1:]), 4
            )
            assert (out.patches[b] - expected).abs().max() < 1e-4
            assert (out.prefix[b, 0, 0] - expected_cls).abs().max() < 1e-4
            for layer, weights in zip(layers, maps, strict=True):
                assert torch.equal(tokens.trace.assign[layer][b].flatten(), assigned(weights, slots))


def assigned(weights, slots):
    """The semantic token that attends most to each patch; weights[k] is (M, patches of slot k)."""
    best = [(-1.0, -1)] * 64
    for k, frames in enumerate(adaptive_bins(4, slots)):
        for place, t in enumerate(range(*frames)):
            for s in range(16):
                column = weights[k][:, place * 16 + s]
                m = int(column.argmax())
                best[t * 16 + s] = max(
                    best[t * 16 + s], (float(column[m]), k * len(column) + m), key=lambda pair: pair[0]
                )
    return torch.tensor([token for _, token in best])


def test_one_slot_per_frame_follows_the_clip():
    model = host("divided", {"stgm": dict(layers=(1, 2), grid=(None, 2, 2))})
    for frames in (1, 3, 4, 9):
        with torch.no_grad():
            _, trace = model(torch.randn(1, 3, frames, 32, 32), return_trace=True)
        per_frame = trace.assign["output"][0].flatten(1)
        for t in range(frames):  # a frame's patches go to that frame's own tokens
            assert set((per_frame[t] // 4).tolist()) == {t}


def test_slots_own_their_frames():
    model = host("divided", {"stgm": dict(layers=(1, 2), grid=(2, 2, 2))})
    with torch.no_grad():
        _, trace = model(torch.randn(CLIP), return_trace=True)
    slot = trace.assign["output"] // 4
    assert (slot[:, :2] == 0).all()
    assert (slot[:, 2:] == 1).all()


def test_a_dense_checkpoint_loads_and_only_the_new_parts_are_missing(tmp_path):
    dense = host("divided")
    save_model(tmp_path / "dense.safetensors", dense, {})
    model = host("divided", {"stgm": dict(layers=(1, 2), grid=(2, 2, 2))})
    report = load_checkpoint(model, tmp_path / "dense.safetensors")
    assert set(report.missing) == {name for name in model.state_dict() if name.startswith("reductions.stgm.")}
    kinds = {name.split(".")[2] for name in report.missing}
    assert kinds == {"gate", "offset", "attn_scale", "mlp_scale", "center_space", "center_time"}
    assert report.unexpected == []
    clip = torch.randn(CLIP)
    with torch.no_grad():
        assert torch.allclose(stvideo.remove_reduction(model)(clip), dense(clip), atol=1e-6)


def test_starts_as_plain_pooling_and_at_the_scale_asked_for():
    model = stvideo.create_model("timesformer_tiny_patch16_224", reduction={"stgm": dict(layer_scale=1e-5)})
    module = model.reductions["stgm"]
    assert module.offset.proj.weight.abs().sum() == 0
    assert all(
        float(scale.gamma[0].detach()) == pytest.approx(1e-5) for scale in (*module.attn_scale, *module.mlp_scale)
    )
    assert 0.01 < float(module.center_space.detach().std()) < 0.03


@settings(max_examples=60)
@given(length=st.integers(1, 60), count=st.integers(1, 60))
def test_bins_cover_everything_and_overlap_by_at_most_one(length, count):
    if count > length:
        return
    bins = adaptive_bins(length, count)
    assert len(bins) == count
    assert bins[0][0] == 0
    assert bins[-1][1] == length
    for (start, stop), (following, end) in itertools.pairwise(bins):
        assert 0 <= stop - following <= 1
        assert start < following
        assert stop < end or stop == length
    pooled = torch.nn.functional.adaptive_avg_pool1d(torch.arange(float(length))[None], count)[0]
    means = torch.tensor([sum(range(a, b)) / (b - a) for a, b in bins])
    assert torch.allclose(pooled, means)


@settings(max_examples=40)
@given(frames=st.integers(1, 20), slots=st.integers(1, 20))
def test_slots_hold_the_frames_of_their_bins(frames, slots):
    if slots > frames:
        return
    table, valid = slot_frames(frames, slots, torch.device("cpu"))
    for k, (start, stop) in enumerate(adaptive_bins(frames, slots)):
        row = table[k] if valid is None else table[k][valid[k]]
        assert row.tolist() == list(range(start, stop))


def test_pooling_with_even_gates_is_the_mean_of_the_window():
    x = torch.randn(1, 1, 35, 6)
    member = space_membership((5, 7), (2, 3), x.device)[None, None]
    pooled = window_pool(x, torch.zeros(1, 1, 35), member).view(2, 3, 6)
    expected = torch.nn.functional.adaptive_avg_pool2d(x.view(5, 7, 6).permute(2, 0, 1), (2, 3)).permute(1, 2, 0)
    assert torch.allclose(pooled, expected, atol=1e-6)


def test_pooling_picks_the_cell_whose_gate_is_open():
    x = torch.randn(1, 1, 16, 6)
    member = space_membership((4, 4), (2, 2), x.device)[None, None]
    logits = torch.full((1, 1, 16), -50.0)
    logits[..., [1, 2, 12, 15]] = 50.0
    assert torch.allclose(window_pool(x, logits, member)[0, 0], x[0, 0, [1, 2, 12, 15]], atol=1e-5)


def test_a_window_without_tokens_falls_back_on_its_frame():
    x = torch.randn(1, 1, 3, 6)
    member = torch.tensor([[True, True, True], [False, False, False]])[None, None]
    pooled = window_pool(x, torch.zeros(1, 1, 3), member)
    assert torch.allclose(pooled[0, 0, 1], x[0, 0].mean(0), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(grid=(2, 5, 2)), "larger than the model's"),
        (dict(grid=(5, 2, 2)), "larger than the model's"),
        (dict(grid=(2, 2)), "grid must be"),
        (dict(grid=(2, 0, 2)), "grid must be"),
        (dict(grid="big"), "grid must be"),
        (dict(layers=(1, 3)), "not consecutive"),
        (dict(layers=(3, 4)), "outside the model's 4 blocks"),
        (dict(gird=(2, 2, 2)), "did you mean 'grid'"),
    ],
)
def test_wrong_options_are_one_clear_line(options, message):
    with pytest.raises(StvideoError, match=message) as caught:
        host("divided", {"stgm": {"layers": (1, 2), "grid": (2, 2, 2), **options}})
    assert "\n" not in str(caught.value)


def test_a_clip_that_is_too_short_or_too_small_is_one_clear_line():
    model = host("divided", {"stgm": dict(layers=(1, 2), grid=(3, 3, 3))})
    with pytest.raises(StvideoError, match="3 time slots for a clip of 2 frames"):
        model(torch.randn(1, 3, 2, 32, 32))
    with pytest.raises(StvideoError, match="3x3 for 2x4 patches"):
        model(torch.randn(1, 3, 4, 16, 32))
