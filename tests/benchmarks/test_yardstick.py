"""The bare matrix products of a model's linear layers."""

import pytest
import torch
from torch import nn

import stvideo
from stvideo.benchmarks.yardstick import linear_shapes, product_calls
from stvideo.core.packed import can_pack

CPU = torch.device("cpu")


def test_shapes_of_all_linear_layers():
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 8, bias=False), nn.Linear(8, 2))
    assert linear_shapes(lambda: model(torch.zeros(3, 5, 4))) == {(15, 4, 8): 1, (15, 8, 8): 2, (15, 8, 2): 1}


def test_linear_layers_are_all_of_a_transformer_but_attention_and_patches():
    model = stvideo.create_model("deit_tiny_patch16_224").to("meta")
    shapes = linear_shapes(lambda: model(torch.empty(2, 3, 1, 224, 224, device="meta")))
    products = sum(count * m * k * n for (m, k, n), count in shapes.items())
    attention, patches = 12 * 2 * 197 * 197 * 192, 196 * 768 * 192
    total = stvideo.count_macs(model, (2, 3, 1, 224, 224)).total
    assert (products + 2 * (attention + patches)) / 1e9 == pytest.approx(total)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_have_the_shapes_asked_for(dtype):
    small, large = (6, 4, 5), (7, 4, 3)
    calls = product_calls([small, large], CPU, dtype == torch.bfloat16)
    assert len(calls) == 2 * (1 + can_pack(dtype))
    for (shape, _), call in calls.items():
        assert (call().shape, call().dtype) == ((shape[0], shape[2]), dtype)
    [training] = product_calls([small], CPU, dtype == torch.bfloat16, training=True).values()
    of_input, of_weight = training()
    assert (of_input.shape, of_weight.shape) == ((6, 4), (5, 4))
