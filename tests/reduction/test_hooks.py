"""Every hook of a reduction, by a small method each; and that no split of a batch is ever seen."""

import pytest
import torch

import stvideo
from stvideo import StvideoError
from stvideo.core.tokens import Tokens
from stvideo.models import vit
from stvideo.reduction import base
from stvideo.reduction.apply import calibrate, has_losses, reduction_losses
from stvideo.reduction.base import reduction_class, register_reduction
from stvideo.reduction.budget import draw_budgets, set_budget, training_budgets
from stvideo.reduction.equal_cost import control_of, cost_of, solve_budget
from stvideo.reduction.hooks import Outcome
from stvideo.reduction.merging import match_bipartite
from stvideo.reduction.sweep import at_budget, parse_sweep
from tests.reduction.hosts import CLIP, KINDS, host
from tests.reduction.toy_methods import ANY_ATTENTION, JOINT_ONLY, TOYS

CASES = [(kind, method) for method in ANY_ATTENTION for kind in KINDS] + [("joint", method) for method in JOINT_ONLY]
SHIPPED = [(kind, name) for name in ("evit", "random", "stgm", "stvitr") for kind in KINDS]


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    for name, cls in TOYS.items():
        monkeypatch.setitem(base._REGISTRY, name, cls)


def with_method(attention, method, **options):
    example = reduction_class(method).example(host(attention).reduction_host())
    return host(attention, {method: example}, **options)


@pytest.mark.parametrize(("attention", "method"), CASES + SHIPPED)
@pytest.mark.parametrize("pool", ["token", "avg"])
def test_a_split_of_the_batch_is_never_seen(attention, method, pool, monkeypatch):
    model = with_method(attention, method, global_pool=pool)
    clips = torch.randn(5, 3, 4, 32, 32)
    with torch.no_grad():
        alone = torch.cat([model(clip[None]) for clip in clips])
        traced = torch.cat([model(clip[None], return_trace=True)[0] for clip in clips])
        for cached in (1, 60_000, 150_000, 10**9):  # one clip at a time, stages cut differently, all together
            monkeypatch.setattr(vit, "CACHED_BYTES", cached)
            assert torch.allclose(model(clips), alone, atol=1e-5), cached
            assert torch.allclose(model(clips.flip(0)).flip(0), alone, atol=1e-5), cached
            assert torch.allclose(model(clips, return_trace=True)[0], traced, atol=1e-5), cached
    assert torch.allclose(alone, traced, atol=1e-5)


def test_stages_are_cut_differently_in_the_test_above(monkeypatch):
    model = with_method("joint", "toy_norm")
    counts = []
    once = model.clips_at_once
    monkeypatch.setattr(model, "clips_at_once", lambda *a: counts.append(once(*a)) or counts[-1])
    monkeypatch.setattr(vit, "CACHED_BYTES", 60_000)
    with torch.no_grad():
        model(torch.randn(5, 3, 4, 32, 32))
    assert len(set(counts)) > 1


@pytest.mark.parametrize(("attention", "method"), CASES)
def test_every_weight_learns(attention, method):
    model = with_method(attention, method).train()
    target = torch.tensor([1, 2])
    logits, tokens = model(torch.randn(CLIP), return_tokens=True)
    losses = reduction_losses(model, Outcome(logits, target, tokens))
    assert has_losses(model) == bool(losses)
    (torch.nn.functional.cross_entropy(logits, target) + sum(losses.values())).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_losses_are_named_and_reach_the_predictors():
    model = with_method("divided", "toy_gather").train()
    logits, tokens = model(torch.randn(CLIP), return_tokens=True)
    losses = reduction_losses(model, Outcome(logits, torch.tensor([0, 1]), tokens))
    assert list(losses) == ["toy_gather/ratio"]
    losses["toy_gather/ratio"].backward()
    assert all(p.weight.grad.abs().sum() > 0 for p in model.reductions["toy_gather"].predictors)
    model.zero_grad()
    model(torch.randn(CLIP)).sum().backward()  # through the masked attention too
    assert all(p.weight.grad.abs().sum() > 0 for p in model.reductions["toy_gather"].predictors)


@pytest.mark.parametrize("attention", ["joint", "space"])
def test_masked_training_equals_gathered_inference(attention):
    model = with_method(attention, "toy_gather")
    clip = torch.randn(CLIP)
    with torch.no_grad():
        gathered = model(clip)
        masked = model.train()(clip)
    assert torch.allclose(masked, gathered, atol=2e-4)


def test_macs_are_counted_of_inference():
    model = with_method("joint", "toy_gather").train()
    dense = stvideo.count_macs(host("joint"), CLIP).total
    assert stvideo.count_macs(model, CLIP).total < 0.8 * dense
    assert model.training


@pytest.mark.parametrize("attention", KINDS)
def test_merging_with_sizes_equals_attention_to_every_copy(attention):
    """Two equal tokens merged into one of size 2 are seen by the others as the two were (proportional attention)."""
    model = host(attention)
    groups = 1 if attention == "joint" else 4
    block = model.blocks[1]
    torch.manual_seed(2)
    patches, prefix = torch.randn(1, groups, 6, 32), torch.randn(1, groups, 1, 32)
    patches[:, :, 5] = patches[:, :, 0]
    tokens = Tokens(patches=patches, prefix=prefix, grid=(4, 1, 6) if groups == 4 else (1, 1, 6))
    target = torch.tensor([0, 1, 2, 3, 4, 0]).expand(1, groups, -1)
    merged = tokens.merge(target, torch.arange(5).expand(1, groups, -1))
    assert torch.equal(merged.size[0, 0], torch.tensor([2.0, 1, 1, 1, 1]))
    with torch.no_grad():
        apart, _ = block.mix_space(tokens)
        together, _ = block.mix_space(merged)
    assert torch.allclose(together.patches, apart.patches[:, :, :5], atol=1e-5)
    assert torch.allclose(together.prefix, apart.prefix, atol=1e-5)


@pytest.mark.parametrize("attention", KINDS)
def test_padding_is_never_seen(attention):
    model = host(attention)
    torch.manual_seed(2)
    groups = 1 if attention == "joint" else 4
    tokens = model.run_blocks(model.embed(torch.randn(2, 3, 4, 32, 32)), range(1))
    count = tokens.patches.shape[2]
    keep = torch.rand(2, groups, count) > 0.4
    keep[0, :, :3] = True
    chosen = tokens.select(keep)
    assert torch.equal(chosen.valid.sum(2), keep.sum(2))
    junk = chosen.replace(patches=torch.where(chosen.valid[..., None], chosen.patches, 1e3))
    with torch.no_grad():
        one, two = (model.forward_head(model.run_blocks(t, range(1, 4))) for t in (chosen, junk))
    assert torch.equal(one, two)


def test_select_keeps_order_and_what_is_attached():
    tokens = Tokens(
        patches=torch.arange(12.0).view(2, 1, 6, 1),
        prefix=torch.zeros(2, 1, 0, 1),
        grid=(1, 2, 3),
        size=torch.arange(1.0, 13).view(2, 1, 6),
        per_token={"id": torch.arange(12).view(2, 1, 6)},
        per_clip={"name": torch.tensor([7, 8])},
    )
    keep = torch.tensor([[[True, False, True, True, False, True]], [[False, True, False, False, False, True]]])
    chosen = tokens.select(keep)
    assert chosen.patches.shape[2] == 4
    assert chosen.per_token["id"][0, 0].tolist() == [0, 2, 3, 5]
    assert chosen.per_token["id"][1, 0, :2].tolist() == [7, 11]
    assert chosen.valid.tolist() == [[[True] * 4], [[True, True, False, False]]]
    assert chosen.sizes()[1, 0].tolist() == [8, 12, 0, 0]
    one, two = chosen.split(1)
    again = Tokens.concatenate([one, two.replace(valid=None).gather(torch.tensor([[[0, 1]]]))])
    assert again.per_token["id"][:, 0, :2].tolist() == [[0, 2], [7, 11]]
    assert torch.equal(again.valid, chosen.valid)
    assert again.per_clip["name"].tolist() == [7, 8]
    assert torch.equal(chosen.mean_patches(chosen.patches)[1], torch.tensor([(7 * 8 + 11 * 12) / 20]))


def test_appended_tokens_and_regrouping():
    tokens = Tokens(
        patches=torch.randn(1, 1, 8, 2),
        prefix=torch.zeros(1, 1, 0, 2),
        grid=(2, 2, 2),
        size=torch.ones(1, 1, 8),
        per_token={"x": torch.ones(1, 1, 8)},
    )
    more = tokens.regroup(2).append(torch.zeros(1, 2, 1, 2), torch.full((1, 2, 1), 3.0))
    assert more.indices().tolist() == [[[0, 1, 2, 3, -1], [4, 5, 6, 7, -1]]]
    assert more.size[0, :, 4].tolist() == [3.0, 3.0]
    assert more.per_token["x"][0, :, 4].tolist() == [0.0, 0.0]


def test_matching_by_hand():
    metric = torch.tensor([[1.0, 0], [0, 1], [0.9, 0.1], [1, 0.05], [0, 2], [0.1, 1]]).view(1, 1, 6, 2)
    # even tokens 0, 2, 4 propose to 1, 3, 5: 0 -> 3 (.9988), 2 -> 3 (.998), 4 -> 1 (1.0)
    target, representative = match_bipartite(metric, 2)
    assert representative[0, 0].tolist() == [2, 1, 3, 5]
    assert target[0, 0].tolist() == [2, 1, 0, 2, 1, 3]
    same, identity = match_bipartite(metric, 0)
    assert same[0, 0].tolist() == identity[0, 0].tolist() == list(range(6))
    target, representative = match_bipartite(metric, 99, first=1)  # odd ones propose now: all three merge
    assert representative[0, 0].tolist() == [0, 2, 4]


def test_merged_means_follow_sizes():
    tokens = Tokens(
        patches=torch.tensor([1.0, 2, 3, 10]).view(1, 1, 4, 1),
        prefix=torch.zeros(1, 1, 0, 1),
        grid=(1, 2, 2),
        size=torch.tensor([1.0, 3, 1, 1]).view(1, 1, 4),
        per_token={"depth": torch.tensor([0.0, 4, 0, 0]).view(1, 1, 4), "id": torch.arange(4).view(1, 1, 4)},
    )
    merged = tokens.merge(torch.tensor([[[0, 0, 1, 1]]]), torch.tensor([[[1, 2]]]))
    assert merged.patches.flatten().tolist() == [1.75, 6.5]
    assert merged.size.flatten().tolist() == [4, 2]
    assert merged.per_token["depth"].flatten().tolist() == [3, 0]
    assert merged.per_token["id"].flatten().tolist() == merged.indices().flatten().tolist() == [1, 2]


@pytest.mark.parametrize("attention", KINDS)
def test_traces_of_merging_and_of_kinds(attention):
    model = with_method(attention, "toy_merge")
    with torch.no_grad():
        _, trace = model(torch.randn(CLIP), return_trace=True)
    assert set(trace.kind.values()) == {"merge"}
    assert (trace.assign["output"] >= 0).all()  # nothing is dropped
    counts = [len(assign[0].unique()) for assign in list(trace.assign.values())[:-1]]
    assert counts == ([60, 56, 52, 48] if attention == "joint" else [48, 32, 16, 8])  # at most half of them merge
    kinds = {name: with_method(attention, name)(torch.randn(CLIP), return_trace=True)[1] for name in ("evit", "stgm")}
    assert kinds["evit"].kind["output"] == "keep"
    assert kinds["stgm"].kind["output"] == "semantic"


def test_neutral_budgets_are_exactly_dense():
    clip = torch.randn(CLIP)
    for attention in KINDS:
        with torch.no_grad():
            expected = host(attention)(clip)
            for method in stvideo.list_reductions():
                for option, budget in reduction_class(method).budgets.items():
                    if budget.dense is not None and method != "toy_gather":  # it reorders
                        assert torch.equal(host(attention, {method: {option: budget.dense}})(clip), expected), method


def test_calibration_stays_in_buffers():
    model = with_method("divided", "toy_calibrated")
    calibrate(model, [torch.randn(CLIP) for _ in range(3)])
    places = model.reductions["toy_calibrated"].places
    assert sorted(places.tolist()) != [0, 1, 2, 3]
    assert "reductions.toy_calibrated.places" in model.state_dict()


def test_fewer_queries_cost_less():
    dense = stvideo.count_macs(host("joint"), CLIP).total
    assert stvideo.count_macs(with_method("joint", "toy_queries"), CLIP).total < 0.9 * dense


def test_budgets_of_a_method_that_nobody_knows():
    model = host("divided", {"toy_merge": dict(r=2, r_range=[0, 4])})
    assert [at_budget(model, point).reductions["toy_merge"].r for point in parse_sweep("toy_merge.r:0,1,4")] == [
        0,
        1,
        4,
    ]
    assert [at_budget(model, point).reductions["toy_merge"].r for point in parse_sweep("r:3,1")] == [3, 1]
    assert set_budget(model, {"toy_merge": {"r": 1}}).reductions["toy_merge"].options == {"r": 1, "r_range": [0, 4]}
    assert [b["toy_merge"]["r"] for b in training_budgets(model, 5)] == [0, 1, 2, 3, 4]
    drawn = set()
    for step in range(40):
        draw_budgets(model.train(), 0, step)
        drawn.add(model.reductions["toy_merge"].r)
    assert drawn == {0, 1, 2, 3, 4}
    assert model.eval().reductions["toy_merge"].r == 1
    wanted = cost_of(model, {"toy_merge": {"r": 3}})
    assert solve_budget(model, "toy_merge", wanted) == 3
    control = control_of(set_budget(model, {"toy_merge": {"r": 3}}))
    assert cost_of(control) == pytest.approx(wanted, rel=0.05)


def test_a_name_is_given_once():
    with pytest.raises(StvideoError, match="exists already"):

        @register_reduction("evit")
        class Other(reduction_class("toy_norm")):
            """Another method of that name."""
