"""Twins of a model at other budgets: the same weights, the right cost, and what cannot be swept."""

import pytest
import torch

import stvideo
from stvideo.core.errors import StvideoError
from stvideo.reduction.apply import reduction_options
from stvideo.reduction.equal_cost import control_of, twin_of
from stvideo.reduction.sweep import at_budget, parse_sweep

SMALL = dict(num_classes=3, num_frames=4, img_size=32, patch_size=8, embed_dim=32, depth=4, num_heads=2)
SHAPE = (1, 3, 4, 32, 32)
CLIP = torch.rand(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0))


def network(reduction=None):
    torch.manual_seed(1)
    return stvideo.create_model("timesformer_tiny_patch16_224", reduction=reduction, **SMALL).eval()


def built(model, reduction):
    """The slow way: a model made with this reduction and loaded with the same weights."""
    other = network(reduction)
    other.load_state_dict(model.state_dict(), strict=False)
    return other


def test_budgets_are_read():
    assert [b.value for b in parse_sweep("keep_rate:1.0,0.5")] == [1.0, 0.5]
    assert [b.value for b in parse_sweep("grid:8x4x4, Tx2x2")] == [[8, 4, 4], [None, 2, 2]]
    assert [b.name for b in parse_sweep("grid:8x4x4")] == ["grid-8x4x4"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.5,0.7", "expected OPTION:VALUE"),
        ("keep_rate:", "expected OPTION:VALUE"),
        ("keeprate:0.5", "did you mean 'keep_rate'"),
        ("keep_rate:half", "'half' is not a number"),
        ("keep_rate:0.5,0.5", "comes twice"),
        ("keep_rate:0.5,0.50", "comes twice"),
        ("keep_rate:nan", "'nan' is not a number"),
        ("keep_rate:0x1", "'0x1' is not a number"),
        ("keep_rate:[0.5", "is not a number"),
        ("keep_rate:!!python/object:x", "is not a number"),
        ("grid:4x4", "TIMExROWSxCOLUMNS"),
    ],
)
def test_what_is_no_sweep(text, message):
    with pytest.raises(StvideoError, match=message):
        parse_sweep(text)


@pytest.mark.parametrize("text", ["keep_rate:0.3", "tokens:5"])
def test_a_twin_computes_what_a_model_built_so_would(text):
    model = network({"evit": dict(keep_rate=0.7, layers=[1, 2])})
    before = model(CLIP)
    (budget,) = parse_sweep(text)
    twin = at_budget(model, budget)
    expected = built(model, {"evit": {budget.option: budget.value, "layers": [1, 2]}})
    assert torch.allclose(twin(CLIP), expected(CLIP), atol=1e-6)
    assert torch.equal(model(CLIP), before)  # the model itself has not changed
    assert not torch.allclose(twin(CLIP), before)
    assert {p.data_ptr() for p in twin.parameters()} == {p.data_ptr() for p in model.parameters()}


def test_a_dense_model_gets_the_reduction_that_the_option_belongs_to():
    model = network()
    assert torch.allclose(at_budget(model, parse_sweep("keep_rate:1.0")[0])(CLIP), model(CLIP), atol=1e-6)
    reduced = at_budget(model, parse_sweep("keep_rate:0.4")[0])
    assert set(stvideo_options(reduced)) == {"evit"}
    assert stvideo_options(model) == {}
    with pytest.raises(StvideoError, match="stgm of this model has no such option"):
        at_budget(network({"stgm": dict(layers=[1, 2], grid=[None, 2, 2])}), parse_sweep("keep_rate:0.4")[0])


@pytest.mark.parametrize(
    "reduction",
    [{"evit": dict(keep_rate=0.4, layers=[1, 2])}, {"stgm": dict(layers=[1, 2], grid=[None, 2, 2])}],
)
def test_the_control_costs_the_same_and_shares_the_weights(reduction):
    model = network(reduction)
    control = control_of(model)
    wanted, has = stvideo.count_macs(model, SHAPE).total, stvideo.count_macs(control, SHAPE).total
    assert has == pytest.approx(wanted, rel=0.06)  # tokens come in whole numbers, and here there are few
    assert set(stvideo_options(control)) == {"random"}
    assert control.head.weight.data_ptr() == model.head.weight.data_ptr()


def test_nothing_to_drop_needs_no_control():
    assert control_of(network()) is None
    assert control_of(network({"evit": dict(keep_rate=1.0, layers=[1])})) is None


def test_a_twin_takes_no_memory():
    model = network()
    twin = twin_of(model)
    assert all(a is b for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    stvideo.apply_reduction(twin, "evit", keep_rate=0.5, layers=[1])
    assert stvideo_options(model) == {}


def stvideo_options(model):
    return reduction_options(model)
