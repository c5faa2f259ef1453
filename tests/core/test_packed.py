"""Linear layers with a rearranged copy of their weights: the same numbers wherever the copy may be used."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import stvideo
from stvideo.core.packed import PackedLinear, can_pack, is_product, linear_rows, pack_linears
from stvideo.weights.export import export_program

needs_packing = pytest.mark.skipif(not can_pack(torch.float32), reason="this build of torch has no such product")


def pair(inner=24, outer=40, bias=True, dtype=torch.float32):
    linear = nn.Linear(inner, outer, bias=bias, dtype=dtype).requires_grad_(False)
    return linear, PackedLinear.from_linear(linear)


@given(
    st.lists(st.integers(0, 5), min_size=0, max_size=3),
    st.integers(1, 70),
    st.integers(1, 70),
    st.booleans(),
    st.data(),
)
@settings(deadline=None, max_examples=60)
def test_any_shape_gives_what_linear_gives(leading, inner, outer, bias, data):
    linear, packed = pair(inner, outer, bias)
    x = torch.randn(*leading, inner)
    torch.testing.assert_close(packed(x), linear(x), atol=1e-5, rtol=1e-5)
    start = data.draw(st.integers(0, outer - 1))
    stop = data.draw(st.integers(start + 1, outer))
    torch.testing.assert_close(linear_rows(packed, x, start, stop), linear(x)[..., start:stop], atol=1e-5, rtol=1e-5)
    gelu = packed.rows(x, start, stop, "gelu")
    torch.testing.assert_close(gelu, F.gelu(linear(x)[..., start:stop]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("value", [-1e4, -20.0, -5.0, -1e-3, 0.0, 1e-3, 5.0, 1e4, float("nan")])
def test_gelu_at_its_ends(value):
    linear, packed = pair(1, 1)
    linear.weight.fill_(1.0)
    linear.bias.zero_()
    x = torch.tensor([[value]])
    torch.testing.assert_close(packed.rows(x, 0, 1, "gelu"), F.gelu(x), atol=1e-6, rtol=1e-5, equal_nan=True)


def test_strides_do_not_matter():
    linear, packed = pair()
    for x in (torch.randn(24, 6).t(), torch.randn(5, 24, 6).transpose(1, 2), torch.randn(4, 48)[:, ::2]):
        torch.testing.assert_close(packed(x), linear(x), atol=1e-5, rtol=1e-5)


@needs_packing
def test_bfloat16():
    linear, packed = pair(dtype=torch.bfloat16)
    x = torch.randn(7, 24, dtype=torch.bfloat16)
    assert packed(x).dtype == torch.bfloat16
    torch.testing.assert_close(packed(x), linear(x), atol=0.05, rtol=0.05)


class Calls(torch.overrides.TorchFunctionMode):
    """How many products went by a rearranged weight."""

    count = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.count += is_product(function)
        return function(*args, **(kwargs or {}))


def packed_products(run):
    with Calls() as calls:
        run()
    return calls.count


@needs_packing
def test_gradients_go_by_the_weight_itself():
    _, packed = pair()
    x = torch.randn(3, 24, requires_grad=True)
    assert packed_products(lambda: packed(x).sum().backward()) == 0
    torch.testing.assert_close(x.grad, packed.weight.sum(0).expand(3, -1))
    with torch.no_grad():
        assert packed_products(lambda: packed(x)) == 1
    packed.requires_grad_(True)
    assert packed_products(lambda: packed(x.detach()).sum().backward()) == 0
    assert packed.weight.grad is not None


@needs_packing
def test_autocast_keeps_its_type():
    linear, packed = pair()
    x = torch.randn(3, 24)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert packed(x).dtype == linear(x).dtype == torch.bfloat16


def test_loading_converting_and_copying_take_the_new_weight():
    _, packed = pair()
    x = torch.randn(3, 24)
    packed(x)
    other = nn.Linear(24, 40)
    packed.load_state_dict(other.state_dict())
    torch.testing.assert_close(packed(x), other(x))
    twin = copy.deepcopy(packed)
    torch.testing.assert_close(twin(x), other(x))
    torch.testing.assert_close(packed.double()(x.double()), other.double()(x.double()))
    assert packed_products(lambda: packed(x.double())) == 0


@needs_packing
@pytest.mark.parametrize("name", ["deit_small_patch16_224", "stvit_swin_tiny_patch4_window7_224"])
def test_a_model_uses_them_everywhere(name):
    torch.manual_seed(0)
    model = stvideo.create_model(name, num_classes=100).eval()
    fast = model.optimize_for_inference()
    large = [m for m in fast.modules() if isinstance(m, PackedLinear)]
    assert large and all(type(m) is not nn.Linear or m.weight.numel() < 2**17 for m in fast.modules())
    assert fast.state_dict().keys() == model.state_dict().keys()
    clip = torch.randn(1, 3, 1, 224, 224)
    with torch.no_grad():
        assert packed_products(lambda: fast(clip)) >= len(large)


def test_an_exported_program_knows_nothing_of_them():
    model = stvideo.create_model("deit_small_patch16_224", num_classes=10).eval()
    fast = model.optimize_for_inference()
    clip = torch.randn(2, 3, 1, 224, 224)
    with torch.no_grad():
        fast(clip)
        program = export_program(fast)
        assert "mkldnn" not in str(program.graph)
        torch.testing.assert_close(program.module()(clip), model(clip), atol=1e-4, rtol=1e-4)


def test_small_layers_stay_as_they_are():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(512, 512))
    pack_linears(model)
    assert [type(layer) for layer in model] == [nn.Linear, PackedLinear]
