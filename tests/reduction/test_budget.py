"""Budgets of a built model: switched without touching weights, drawn in training, kept by a checkpoint."""

import pytest
import torch

import stvideo
from stvideo import StvideoError
from stvideo.reduction.apply import reduction_options
from stvideo.reduction.budget import draw_budgets, limit_budgets, set_budget, training_budgets
from stvideo.weights.saving import save_model
from tests.reduction.hosts import CLIP, host

GRIDS = [[4, 2, 2], [2, 2, 2], [4, 1, 1], [4, 3, 4]]


def logits(model):
    with torch.no_grad():
        return model(torch.randn(CLIP, generator=torch.Generator().manual_seed(3)))


@pytest.mark.parametrize(
    ("method", "options", "budget"),
    [
        ("evit", dict(keep_rate=0.7), dict(keep_rate=0.4)),
        ("evit", dict(keep_rate=0.7), dict(keep_rate=[0.9, 0.5, 0.5])),
        ("evit", dict(keep_rate=0.7), dict(tokens=5)),
        ("evit", dict(tokens=5), dict(keep_rate=1.0)),
        ("evit", dict(keep_rate=0.7, keep_rate_range=[0.4, 1.0]), dict(tokens=5)),
        ("random", dict(keep_rate=1.0), dict(keep_rate=0.3)),
    ],
)
def test_a_switched_model_computes_what_one_built_so_would(method, options, budget):
    model = set_budget(host("divided", {method: options}), {method: budget})
    built = host(
        "divided",
        {method: {**{k: v for k, v in options.items() if k not in model.reductions[method].budgets}, **budget}},
    )
    torch.manual_seed(0)
    switched = logits(model)
    torch.manual_seed(0)
    assert torch.equal(switched, logits(built))
    assert reduction_options(model) == reduction_options(built)


@pytest.mark.parametrize(("method", "layers"), [("stgm", (1, 2)), ("stvitr", (1, 2, 3))])
@pytest.mark.parametrize("attention", ["divided", "joint"])
def test_one_set_of_weights_serves_every_grid(method, layers, attention, tmp_path):
    model = host(attention, {method: dict(layers=layers, grids=GRIDS)})
    assert reduction_options(model)[method]["grids"] == GRIDS
    largest = logits(model)
    for grid in GRIDS:
        set_budget(model, {method: dict(grid=grid)})
        now = logits(model)
        assert now.isfinite().all()
        assert torch.equal(now, largest) == (grid == [4, 3, 4])
        save_model(tmp_path / "one.safetensors", model, {})
        loaded = stvideo.load_model(tmp_path / "one.safetensors")
        assert torch.equal(logits(loaded.eval()), now)
    set_budget(model, {method: dict(num_semantic_tokens=9)})
    assert logits(model).isfinite().all()


def test_a_model_of_one_grid_takes_others_and_comes_back(tmp_path):
    model = host("divided", {"stgm": dict(layers=(1, 2), grid=(None, 3, 3))})
    before = logits(model)
    set_budget(model, {"stgm": dict(grid=[2, 2, 2])})
    assert not torch.equal(logits(model), before)
    save_model(tmp_path / "one.safetensors", model, {})
    loaded = stvideo.load_model(tmp_path / "one.safetensors")
    assert torch.equal(logits(loaded.eval()), logits(model))
    assert torch.equal(logits(set_budget(model, {"stgm": dict(grid=[None, 3, 3])})), before)


def test_the_global_centres_of_another_grid_are_resized_ones():
    model = host("divided", {"stgm": dict(layers=(1, 2), grids=[[4, 2, 2], [4, 4, 4]])})
    stgm = model.reductions["stgm"]
    with torch.no_grad():
        stgm.center_space.copy_(torch.arange(4.0).repeat_interleave(4).view(1, 16, 1).expand(1, 16, 32))  # by row
        stgm.center_time.zero_()
    small = stgm.global_centers((4, 2, 2))[0, 0, :, 0].view(2, 2).detach()
    assert torch.equal(small[:, 0], small[:, 1])
    assert small[0, 0] == pytest.approx(0.5, abs=0.1)
    assert small[1, 0] == pytest.approx(2.5, abs=0.1)


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({"evitt": dict(keep_rate=0.5)}, r"no reduction 'evitt' \(did you mean 'evit'\?\); it has: evit"),
        ({"evit": dict(layers=[1])}, "layers is no budget; what can change on a built model: keep_rate, tokens"),
        ({"evit": dict(keep_rate=1.5)}, "keep_rate must be above 0 and at most 1"),
        ({"evit": dict(keep_rate=0.5, tokens=3)}, "not both"),
    ],
)
def test_what_is_no_budget(budget, message):
    model = host("divided", {"evit": dict(keep_rate=0.7)})
    before = reduction_options(model)
    with pytest.raises(StvideoError, match=message):
        set_budget(model, budget)
    assert reduction_options(model) == before


def test_a_dense_model_has_no_budget():
    with pytest.raises(StvideoError, match="it has: none"):
        set_budget(host("divided"), {"evit": dict(keep_rate=0.5)})
    assert training_budgets(host("divided", {"evit": {}})) == []


def test_draws_cover_the_range_and_repeat():
    model = host("divided", {"evit": dict(keep_rate=0.5, keep_rate_range=[0.25, 0.75])}).train()
    evit = model.reductions["evit"]
    rates = []
    for step in range(400):
        draw_budgets(model, seed=7, step=step)
        rates.append(evit.state_summary()["keep_rate"])
        evit.set_epoch(step / 10)  # the schedule leaves drawn rates alone
        assert evit.state_summary()["keep_rate"] == rates[-1]
    assert 0.25 <= min(rates) < 0.26
    assert 0.74 < max(rates) <= 0.75
    assert len(set(rates)) == 400
    assert sum(rates) / 400 == pytest.approx(0.5, abs=0.03)
    draw_budgets(model, seed=7, step=123)
    assert evit.state_summary()["keep_rate"] == rates[123]
    draw_budgets(model, seed=8, step=123)
    assert evit.state_summary()["keep_rate"] != rates[123]


def test_every_grid_is_drawn():
    model = host("divided", {"stgm": dict(layers=(1, 2), grids=GRIDS)}).train()
    drawn = []
    for step in range(60):
        draw_budgets(model, seed=0, step=step)
        drawn.append(list(model.reductions["stgm"].grid))
    assert {tuple(grid) for grid in drawn} == {tuple(grid) for grid in GRIDS}


def test_evaluation_does_not_see_what_training_draws():
    model = host(
        "divided",
        {
            "evit": dict(layers=[0], keep_rate=0.5, keep_rate_range=[0.25, 1.0]),
            "stgm": dict(layers=(1, 2), grids=GRIDS),
        },
    )
    before = logits(model)
    outputs = set()
    for step in range(8):
        draw_budgets(model.train(), seed=0, step=step)
        outputs.add(logits(model).sum().item())
        assert torch.equal(logits(model.eval()), before)
    assert len(outputs) > 4


def test_units_of_a_recovery_network_draw_the_same_grid():
    model = host("divided", {"stvitr": dict(layers=(0, 1, 2, 4, 5, 6), grids=GRIDS)}, depth=7).train()
    for step in range(10):
        draw_budgets(model, seed=0, step=step)
        assert len({unit.stgm.grid for unit in model.reductions["stvitr"].units}) == 1
        assert logits(model).isfinite().all()


def test_few_levels_where_each_is_a_compilation():
    model = host(
        "divided",
        {
            "evit": dict(layers=[0], keep_rate=0.3, shrink_start_epoch=1, shrink_epochs=10),
            "random": dict(layers=[1], keep_rate_range=[0.2, 0.9]),
        },
    )
    limit_budgets(model.train())
    scheduled, drawn = [], set()
    for step in range(500):
        for reduction in model.reductions.values():
            reduction.set_epoch(step / 40)
        draw_budgets(model, seed=0, step=step)
        scheduled.append(model.reductions["evit"].keep_rates)
        drawn.add(model.reductions["random"].keep_rates)
    assert len(set(scheduled)) == len(drawn) == 8
    assert scheduled[0] == (1.0,)
    assert scheduled[-1] == (0.3,)
    assert sorted(scheduled, reverse=True) == scheduled
    assert (min(drawn), max(drawn)) == ((0.2,), (0.9,))


def test_the_range_is_what_an_evaluation_sweeps(tmp_path):
    model = host(
        "divided",
        {"evit": dict(layers=[0], keep_rate=0.5, keep_rate_range=[0.4, 1.0]), "stgm": dict(layers=(1, 2), grids=GRIDS)},
    )
    save_model(tmp_path / "one.safetensors", model, {})
    loaded = stvideo.load_model(tmp_path / "one.safetensors")
    budgets = training_budgets(loaded, count=4)
    assert len(budgets) == 4 * len(GRIDS)
    assert {budget["evit"]["keep_rate"] for budget in budgets} == {0.4, 0.6, 0.8, 1.0}
    costs = [stvideo.count_macs(set_budget(loaded, budget), (1, 3, 4, 32, 32)).total for budget in budgets]
    assert len(set(costs)) == len(costs)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("evit", dict(keep_rate_range=[0.9, 0.4]), "lower one first"),
        ("evit", dict(keep_rate_range=0.5), r"two values such as \[0.4, 1.0\]"),
        ("evit", dict(keep_rate_range=[0, 1]), "above 0"),
        ("evit", dict(keep_rate_range=[0.4, 1], shrink_epochs=5), "give no schedule"),
        ("random", dict(keep_rate_range=["a", 1]), "above 0"),
        ("stgm", dict(layers=(1, 2), grids=[]), "list of"),
        ("stgm", dict(layers=(1, 2), grids=[4, 2, 2]), "grid must be"),
        ("stgm", dict(layers=(1, 2), grids=[[4, 2, 2], [4, 9, 9]]), "larger than the model's"),
    ],
)
def test_ranges_that_cannot_be(method, options, message):
    with pytest.raises(StvideoError, match=message):
        host("divided", {method: options})
