"""EViT on video against its formulas written out, and its rules."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import stvideo
from stvideo import StvideoError
from stvideo.reduction.keep_or_drop import fuse_inattentive, keep_rate_at, num_kept, select_topk
from stvideo.reduction.random import scramble
from tests.reduction.hosts import CLIP, KINDS, host
from tests.textbook import attention, attention_map, embed, feed_forward, layer_norm, linear, temporal


def textbook_evit(state, clip, layers, keep_rate, fuse):
    """Divided attention with tube scope, one clip (3, T, H, W), token by token. Returns logits and kept positions."""
    heads = 4
    cls, tokens = embed(state, clip, 8)
    tokens = tokens + state["time_embed"][0].unsqueeze(1)
    positions = list(range(tokens.shape[1]))  # of each column of tokens; None for the fused one
    history = []
    for i in range(4):
        block = f"blocks.{i}"
        tokens = temporal(state, block, tokens, heads)
        cls_outputs, rows, scores = [], [], []
        for t in range(tokens.shape[0]):
            x = layer_norm(state, f"{block}.norm1", torch.cat((cls[None], tokens[t])))
            out = attention(state, f"{block}.attn", x, x, heads)
            weights, _ = attention_map(state, f"{block}.attn", x, x, heads)
            scores.append(weights.mean(0)[0, 1:])
            cls_outputs.append(out[0])
            rows.append(tokens[t] + out[1:])
        cls = cls + torch.stack(cls_outputs).mean(0)
        tokens = torch.stack(rows)
        if i in layers:
            count = tokens.shape[1]
            keep = math.ceil(keep_rate * count)
            mean_score = torch.stack(scores).mean(0)
            order = sorted(range(count), key=lambda n: -float(mean_score[n]))
            kept, lost = order[:keep], order[keep:]
            columns = [tokens[:, n] for n in kept]
            if fuse and lost:
                fused = [sum(scores[t][n] * tokens[t, n] for n in lost) for t in range(tokens.shape[0])]
                columns.append(torch.stack(fused))
            tokens = torch.stack(columns, dim=1)
            positions = [positions[n] for n in kept] + ([None] if fuse and lost else [])
            history.append(positions)
        cls, tokens = feed_forward(state, block, cls), feed_forward(state, block, tokens)
    return linear(state, "head", layer_norm(state, "norm", cls)), history


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("keep_rate", [0.3, 0.5, 0.9])
def test_tube_equals_the_textbook_form(fuse, keep_rate):
    model = host("divided", {"evit": dict(layers=(0, 2), keep_rate=keep_rate, fuse=fuse)})
    clips = torch.randn(CLIP)
    with torch.no_grad():
        logits, trace = model(clips, return_trace=True)
        for b, clip in enumerate(clips):
            expected, history = textbook_evit(model.state_dict(), clip, (0, 2), keep_rate, fuse)
            assert (logits[b] - expected).abs().max() < 1e-4
            for layer, positions in zip((0, 2), history, strict=True):
                per_frame = len(positions)
                for rank, position in enumerate(positions):
                    if position is not None:
                        ids = trace.assign[layer][b].flatten(1)[:, position]
                        assert ids.tolist() == [t * per_frame + rank for t in range(4)]
                alive = trace.assign[layer][b] >= 0
                assert bool(alive.all()) is fuse
                lost = set(range(16)) - {p for p in positions if p is not None}
                fused = trace.fused[layer][b].flatten(1).any(0).nonzero().flatten().tolist()
                assert set(fused) == (lost if fuse else set())


def textbook_frame_scope(state, clip, layers, keep_rate, fuse):
    """Divided attention with frame scope, one clip: every frame is a list of (place, token). Returns the logits.

    A place is a position, or ("fused", n) for the token of the n-th fusion; temporal attention runs among the tokens
    of one place.
    """
    heads = 4
    cls, embedded = embed(state, clip, 8)
    embedded = embedded + state["time_embed"][0].unsqueeze(1)
    frames = [dict(enumerate(frame)) for frame in embedded]
    for i in range(4):
        block = f"blocks.{i}"
        for place in {place for frame in frames for place in frame}:
            there = [frame for frame in frames if place in frame]
            column = torch.stack([frame[place] for frame in there])
            for frame, row in zip(there, temporal(state, block, column[:, None], heads)[:, 0], strict=True):
                frame[place] = row
        cls_outputs = []
        for t, frame in enumerate(frames):
            x = layer_norm(state, f"{block}.norm1", torch.stack((cls, *frame.values())))
            out = attention(state, f"{block}.attn", x, x, heads)
            weights, _ = attention_map(state, f"{block}.attn", x, x, heads)
            score = dict(zip(frame, weights.mean(0)[0, 1:], strict=True))
            cls_outputs.append(out[0])
            frame = {place: token + out[1 + n] for n, (place, token) in enumerate(frame.items())}
            if i in layers:
                order = sorted(frame, key=lambda place: -float(score[place]))
                kept = order[: math.ceil(keep_rate * len(order))]
                lost = order[len(kept) :]
                fused = sum(score[place] * frame[place] for place in lost)
                frame = {place: frame[place] for place in kept}
                if fuse and lost:
                    frame[("fused", i)] = fused
            frames[t] = frame
        cls = feed_forward(state, block, cls + torch.stack(cls_outputs).mean(0))
        frames = [{place: feed_forward(state, block, token) for place, token in frame.items()} for frame in frames]
    return linear(state, "head", layer_norm(state, "norm", cls))


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("keep_rate", [0.2, 0.5])
def test_frame_scope_equals_the_textbook_form(fuse, keep_rate):
    model = host("divided", {"evit": dict(layers=(0, 1, 2), keep_rate=keep_rate, fuse=fuse, scope="frame")})
    clips = torch.randn(CLIP)
    with torch.no_grad():
        logits, trace = model(clips, return_trace=True)
        for b, clip in enumerate(clips):
            expected = textbook_frame_scope(model.state_dict(), clip, (0, 1, 2), keep_rate, fuse)
            assert (logits[b] - expected).abs().max() < 1e-4
    kept = ~trace.fused[0] & (trace.assign[0] >= 0)
    assert (kept.flatten(2).sum(2) == math.ceil(keep_rate * 16)).all()
    assert not (kept == kept[:, :1]).all()  # frames differ in what they keep


def test_frame_scope_learns_and_composes():
    reduction = {
        "evit": dict(layers=(0, 1), keep_rate=0.5, scope="frame"),
        "stgm": dict(layers=(2, 3), grid=(2, 2, 2)),
    }
    model = host("divided", reduction).train()
    model(torch.randn(CLIP)).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in model.parameters())
    mixed = {"random": dict(layers=(0,), scope="frame", keep_rate=0.5), "evit": dict(layers=(1,), scope="tube")}
    with pytest.raises(StvideoError, match="chose them frame by frame"):
        host("divided", mixed)(torch.randn(CLIP))


@pytest.mark.parametrize("attention_kind", KINDS)
@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("scope", [None, "tube", "frame"])
def test_keep_rate_one_is_exactly_the_dense_model(attention_kind, fuse, scope):
    if scope == "frame" and attention_kind == "joint":
        pytest.skip("there is no such scope under joint attention")
    clip = torch.randn(CLIP)
    with torch.no_grad():
        expected = host(attention_kind)(clip)
        model = host(attention_kind, {"evit": dict(keep_rate=1.0, layers=(0, 1, 2, 3), fuse=fuse, scope=scope)})
        logits, trace = model(clip, return_trace=True)
    assert (logits - expected).abs().max() < 1e-5
    every_patch = torch.arange(64).view(1, 4, 4, 4).expand(2, -1, -1, -1)
    assert torch.equal(trace.assign["output"], every_patch)
    assert not trace.fused["output"].any()


def test_clip_scope_lets_all_tokens_of_the_clip_compete():
    model = host("joint", {"evit": dict(keep_rate=0.25, layers=(1,), fuse=False)})
    with torch.no_grad():
        _, trace = model(torch.randn(CLIP), return_trace=True)
    kept = trace.assign[1] >= 0
    assert kept.flatten(1).sum(1).tolist() == [16, 16]
    assert len(set(kept.flatten(2).sum(2).flatten().tolist())) > 1  # not equally many in every frame
    score = trace.score[1]
    for b in range(2):
        assert score[b][kept[b]].min() >= score[b][~kept[b]].max()
        assert torch.equal(
            score[b].flatten().argsort(descending=True)[:16], trace.assign[1][b].flatten().argsort()[48:]
        )


@pytest.mark.parametrize("attention_kind", KINDS)
def test_tube_scope_keeps_the_same_positions_in_every_frame(attention_kind):
    model = host(attention_kind, {"evit": dict(keep_rate=0.5, layers=(0, 1), scope="tube")})
    with torch.no_grad():
        _, trace = model(torch.randn(CLIP), return_trace=True)
    for layer in (0, 1):
        kept = ~trace.fused[layer]
        assert (kept == kept[:, :1]).all()
        for b in range(2):
            ids = trace.assign[layer][b][kept[b]]
            assert len(ids.unique()) == len(ids)


def test_each_layer_may_have_its_own_rate():
    model = host("divided", {"evit": dict(keep_rate=[0.75, 0.5], layers=[1, 2], fuse=False)})
    with torch.no_grad():
        _, trace = model(torch.randn(CLIP), return_trace=True)
    counts = [int((trace.assign[layer][0] >= 0).sum()) // 4 for layer in (1, 2)]
    assert counts == [12, 6]


def test_scores_sum_to_what_the_class_token_gives_the_patches():
    model = host("divided", {"evit": dict(keep_rate=0.5, layers=(0,))})
    with torch.no_grad():
        _, trace = model(torch.randn(CLIP), return_trace=True)
    totals = trace.score[0].flatten(2).sum(2)
    assert ((totals > 0) & (totals < 1)).all()


def test_the_schedule_acts_in_training_and_evaluation_uses_the_final_rate():
    model = host("divided", {"evit": dict(keep_rate=0.5, layers=(1,), shrink_start_epoch=1, shrink_epochs=2)})
    reduction = model.reductions["evit"]
    clip = torch.randn(CLIP)
    counts = []
    for epoch in (0.5, 2.0, 3.0):
        model.train()
        reduction.set_epoch(epoch)
        _, trace = model(clip, return_trace=True)
        counts.append(int((~trace.fused[1][0]).sum()) // 4)
    assert counts == [16, 12, 8]
    assert reduction.state_summary() == {"keep_rate": 0.5}
    reduction.set_epoch(0.0)
    _, trace = model.eval()(clip, return_trace=True)
    assert int((~trace.fused[1][0]).sum()) // 4 == 8


@given(
    base=st.floats(0.01, 1),
    start=st.floats(0, 20),
    length=st.floats(0, 200),
    first=st.floats(0, 300),
    then=st.floats(0, 50),
)
def test_the_schedule_falls_from_one_to_the_base_rate(base, start, length, first, then):
    early, late = keep_rate_at(first, base, start, length), keep_rate_at(first + then, base, start, length)
    assert base - 1e-9 <= late <= early <= 1
    assert keep_rate_at(start + length, base, start, length) == base
    assert start < 1e-300 or keep_rate_at(start * 0.99, base, start, length) == 1


def test_the_schedule_is_half_a_cosine():
    assert keep_rate_at(60, 0.7, 10, 100) == pytest.approx(0.85)
    assert keep_rate_at(35, 0.7, 10, 100) == pytest.approx(0.7 + 0.3 * (1 + math.cos(math.pi / 4)) / 2)


@settings(max_examples=40)
@given(count=st.integers(1, 40), rate=st.floats(0.01, 1), seed=st.integers(0, 1000))
def test_selection_and_fusion_account_for_every_token(count, rate, seed):
    generator = torch.Generator().manual_seed(seed)
    score = torch.rand(2, 3, count, generator=generator)
    patches = torch.randn(2, 3, count, 5, generator=generator)
    keep = num_kept(rate, count)
    assert 1 <= keep <= count
    kept = select_topk(score, keep)
    picked = score.gather(-1, kept)
    assert (picked.diff(dim=-1) <= 0).all()
    mask = torch.ones_like(score).scatter(-1, kept, 0.0)
    assert ((score * mask).amax(-1) <= picked.amin(-1)).all()
    expected = (patches * (score * mask).unsqueeze(-1)).sum(2, keepdim=True)
    assert torch.allclose(fuse_inattentive(patches, score, kept), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(keep_rate=0), "above 0 and at most 1"),
        (dict(keep_rate=1.1), "above 0 and at most 1"),
        (dict(keep_rate="half"), "above 0 and at most 1"),
        (dict(keep_rate=[0.5, 0.5], layers=[1]), "2 values of keep_rate for 1 layers"),
        (dict(layers=[4]), "outside the model's 4 blocks"),
        (dict(layers=[-1]), "outside"),
        (dict(layers=[1, 1]), "twice"),
        (dict(layers="all"), "block numbers"),
        (dict(scope="clip"), "needs joint attention"),
        (dict(scope="batch"), "must be 'tube'"),
        (dict(tokens=0), "whole number from 1 up"),
        (dict(keep_ratio=0.5), "did you mean 'keep_rate'"),
        (dict(shrink_epochs=-1), "must not be negative"),
    ],
)
def test_wrong_options_are_one_clear_line(options, message):
    with pytest.raises(StvideoError, match=message) as caught:
        host("divided", {"evit": options})
    assert "\n" not in str(caught.value)


def test_frame_scope_needs_frames_of_their_own():
    with pytest.raises(StvideoError, match="scope 'frame' needs divided or space-only"):
        host("joint", {"evit": dict(scope="frame")})


@pytest.mark.parametrize("attention_kind", KINDS)
def test_without_a_class_token_the_score_is_the_attention_that_a_token_receives(attention_kind):
    """One layer, by hand: the mean over heads and queries of the softmax, the most attended half is kept."""
    model = host(
        attention_kind, {"evit": dict(keep_rate=0.5, layers=[1], fuse=False)}, class_token=False, global_pool="avg"
    )
    clip = torch.randn(1, 3, 4, 32, 32)
    with torch.no_grad():
        tokens = model.run_blocks(model.embed(clip), range(1))
        block = model.blocks[1]
        x = block.norm1(block.mix_time(tokens).sequences().flatten(0, 1))
        q, k, _ = block.attn.project_qkv(x)
        score = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1).mean((1, 2))
        if attention_kind != "joint":
            score = score.mean(0, keepdim=True)
        expected = {int(i) for i in score[0].topk(score.shape[1] // 2).indices}
        _, trace = model(clip, return_trace=True)
    kept = (trace.assign[1][0] >= 0).flatten(1)
    found = kept.flatten() if attention_kind == "joint" else kept[0]
    assert {int(i) for i in found.nonzero()} == expected
    assert trace.score[1].shape == (1, 4, 4, 4)


def test_two_methods_cannot_share_a_slot():
    with pytest.raises(StvideoError, match="block 1 is taken by 'evit'"):
        host("divided", {"evit": dict(layers=(1,)), "random": dict(layers=(1,))})
    with pytest.raises(StvideoError, match="block 2 is taken by 'stgm'"):
        host("divided", {"stgm": dict(layers=(1, 2), grid=(2, 2, 2)), "evit": dict(layers=(2,))})


def test_the_random_control_costs_what_its_rival_costs():
    rival = {"stgm": dict(layers=(1, 2), grid=(None, 1, 1))}
    model = host("divided", {"random": dict(layers=(0,), equal_to=rival)})
    wanted = stvideo.count_macs(host("divided", rival), (1, 3, 4, 32, 32)).total
    got = stvideo.count_macs(model, (1, 3, 4, 32, 32)).total
    dense = stvideo.count_macs(host("divided"), (1, 3, 4, 32, 32)).total
    assert abs(got - wanted) < 0.5 * (dense - wanted) / 12  # within half a token column's worth
    assert set(model.reductions["random"].options) == {"layers", "keep_rate"}  # solved, so that it reloads as it is
    with pytest.raises(StvideoError, match="no keep rate brings"):
        host("divided", {"random": dict(layers=(3,), equal_to=rival)})


def test_the_random_control_draws_afresh_for_every_clip():
    model = host("divided", {"random": dict(keep_rate=0.5, layers=(1,))})
    clip = torch.randn(8, 3, 4, 32, 32)
    with torch.no_grad():
        _, trace = model(clip, return_trace=True)
        _, again = model(clip.flip(0), return_trace=True)
        _, first = model.train()(clip, return_trace=True)
        _, second = model(clip, return_trace=True)
    kept = (trace.assign[1] >= 0).flatten(1)
    assert (kept.sum(1) == 32).all()
    assert len({tuple(row.tolist()) for row in kept}) == 8
    assert torch.equal(kept, (again.assign[1] >= 0).flatten(1).flip(0))  # in evaluation a function of the clip alone
    assert not torch.equal(first.assign[1] >= 0, second.assign[1] >= 0)  # in training of the step


def test_random_draws_are_even():
    draw = scramble(torch.arange(200_000) * 7919)
    assert draw.mean().item() == pytest.approx(0.5, abs=0.005)
    assert torch.histc(draw, 20, 0, 1).div(len(draw)).sub(0.05).abs().max() < 0.003
    assert torch.corrcoef(torch.stack((draw[:-1], draw[1:])))[0, 1].abs() < 0.01
    assert torch.corrcoef(torch.stack((draw[:-14], draw[14:])))[0, 1].abs() < 0.01
