"""Where the forward pass goes: every reduction is listed, the parts sum to the pass, and nothing is left behind."""

import time

import pytest
import torch

import stvideo
from stvideo.benchmarks.own_cost import BLOCKS, IN_ALL, OTHER, REST, own_cost
from stvideo.benchmarks.running import forward_call
from stvideo.reduction.base import Reduction
from stvideo.reduction.keep_or_drop import select_topk

CPU = torch.device("cpu")
TINY = dict(embed_dim=32, depth=4, num_heads=2, img_size=32, num_frames=2, num_classes=3)
EXPECTED = {
    "evit": {"scores", "top-k", "gather", "fusion", OTHER, IN_ALL},
    "stgm": {"pooling", "cross-attention", "temporal attention", "feed-forward", OTHER, IN_ALL},
    "stvitr": {"stgm / pooling", "stgm / cross-attention", "recovery", "recovery / feed-forward", OTHER, IN_ALL},
}


def costs_of(reduction):
    model = stvideo.create_model("timesformer_tiny_patch16_224", **TINY, reduction=reduction)
    run = forward_call(model, torch.randn(1, 3, 2, 32, 32))
    return model, own_cost(model, run, CPU, passes=2)


@pytest.mark.parametrize("name", stvideo.list_reductions())
def test_every_reduction_is_listed_with_its_parts(name):
    options = {"stgm": dict(layers=[2, 3], grid=(2, 1, 1)), "stvitr": dict(layers=[1, 2, 3], grid=(2, 1, 1))}
    model, costs = costs_of({name: options.get(name, {})})
    own = [cost for cost in costs if cost.owner == name]
    parts = {cost.part for cost in own}
    assert own and own == costs[: len(own)]  # reductions come first
    assert parts >= EXPECTED.get(name, {OTHER, IN_ALL})
    assert own[-1].part == IN_ALL
    assert all(cost.seconds > 0 for cost in costs)
    assert {cost.owner for cost in costs} == {name, BLOCKS, REST}
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_the_parts_of_a_pass_sum_to_it():
    _, costs = costs_of({"evit": dict(layers=[1]), "stgm": dict(layers=[2, 3], grid=(2, 1, 1))})
    shares = [cost.share for cost in costs if cost.part == IN_ALL or cost.owner == REST]
    assert {cost.owner for cost in costs} == {"evit", "stgm", BLOCKS, REST}
    assert sum(shares) == pytest.approx(1, abs=0.2)  # medians of two passes each


def test_a_dense_model_has_none():
    assert costs_of(None)[1] == []


def test_a_swin_s_semantic_layers_are_listed():
    model = stvideo.create_model("stvit_swin_tiny_patch4_window7_224", img_size=224)
    run = forward_call(model, torch.randn(1, 3, 1, 224, 224))
    parts = {cost.part for cost in own_cost(model, run, CPU, passes=1) if cost.owner == "reduction"}
    assert {"first layer", "first layer / pooling", "second layer", IN_ALL} <= parts


def test_time_is_counted_where_it_is_spent():
    class Slow(Reduction):
        name = "slow"

        def forward(self, layer, tokens, info):
            time.sleep(0.02)
            select_topk(torch.rand(8), 2)
            return tokens

    model = stvideo.create_model("timesformer_tiny_patch16_224", **TINY)
    model.reductions["slow"] = Slow(model.reduction_host(), layers=[1])
    costs = own_cost(model, forward_call(model, torch.randn(1, 3, 2, 32, 32)), CPU, passes=1)
    of = {(cost.owner, cost.part): cost.seconds for cost in costs}
    assert of["slow", OTHER] >= 0.02
    assert of["slow", "top-k"] + of["slow", OTHER] == pytest.approx(of["slow", IN_ALL])
