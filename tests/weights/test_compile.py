"""Every model compiles into one graph, forwards and backwards, and stays the same model."""

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from tests.export_cases import CASES, EVERY_METHOD, cases
from tests.reduction.hosts import host

INDUCTOR = ("dense divided", "evit divided", "stgm divided", "stvitr divided", "evit frame divided", "stvit swin")


@pytest.fixture(autouse=True)
def forget_earlier_graphs():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def output_and_gradients(model, call, clip):
    """Logits, and the gradients of every weight; the same random draws every time."""
    model.zero_grad()
    torch.manual_seed(3)
    logits = call(clip)
    logits.square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    return logits.detach(), [p.grad.clone() for p in model.parameters()]


def check_same(model, call, tolerance=1e-5):
    """``call``, the compiled ``model``, gives its logits and gradients, whatever mode the model is in."""
    clip = torch.randn(2, *model.example_shape()[1:])
    expected, expected_gradients = output_and_gradients(model, model, clip)
    logits, gradients = output_and_gradients(model, call, clip)
    assert torch.allclose(logits, expected, atol=tolerance)
    for one, other in zip(gradients, expected_gradients, strict=True):
        assert (one - other).abs().max() <= 10 * tolerance * max(1.0, float(other.abs().max()))


@cases(*EVERY_METHOD, "evit frame divided", "stvit video swin")
def test_one_graph_forwards_and_backwards(case):
    model = CASES[case]()
    check_same(model, torch.compile(model, fullgraph=True, backend="eager", dynamic=False))


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("case", [case for case in CASES if "random" not in case])
def test_one_differentiated_graph(case, training):
    model = CASES[case]().train(training)
    check_same(model, torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=False))


@pytest.mark.slow
@pytest.mark.parametrize("case", INDUCTOR)
def test_machine_code(case):
    model = CASES[case]()
    compiled = torch.compile(model, fullgraph=True, dynamic=False)
    check_same(model, compiled, tolerance=1e-4)
    clip = torch.randn(2, *model.example_shape()[1:])
    with torch.inference_mode():
        assert torch.allclose(compiled(clip), model(clip), atol=1e-4)


@cases("stgm divided")
def test_one_graph_of_a_model_made_fast(case):
    fast = CASES[case]().optimize_for_inference()
    clip = torch.randn(2, *fast.example_shape()[1:])
    with torch.inference_mode():
        torch.manual_seed(3)
        expected = fast(clip)
        torch.manual_seed(3)
        assert torch.allclose(torch.compile(fast, fullgraph=True, backend="eager")(clip), expected, atol=1e-5)


def test_other_numbers_of_clips_share_a_graph():
    model = host("divided", {"evit": dict(keep_rate=0.5, layers=(1, 2), scope="frame")})
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    with torch.no_grad():
        for batch in (2, 3, 4, 7):
            clip = torch.randn(batch, 3, 4, 32, 32)
            assert torch.allclose(compiled(clip), model(clip), atol=1e-5)
    assert counter.frame_count == 2  # one for the first number, one for any other
