"""The measuring tools: turns, ratios, matrix products and memory. Nothing here looks at how long anything took."""

import gc
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import stvideo
from stvideo.benchmarks import timing
from stvideo.benchmarks.memory import peak_memory, saved_activations
from stvideo.benchmarks.running import backward_call, forward_call, training_call
from stvideo.benchmarks.timing import Contestant, Timing, percentile, race, ratio
from stvideo.benchmarks.yardstick import linear_shapes, product_calls
from stvideo.core.memory import is_out_of_memory
from stvideo.core.packed import can_pack

CPU = torch.device("cpu")


def test_contestants_take_turns():
    order = []
    contestants = [Contestant(name, lambda name=name: order.append(name), min_seconds=0.0) for name in "abc"]
    timings = race(contestants, rounds=4, device=CPU, each_call=True)
    assert "".join(order) == "aabbcc" + "abc" + "bca" + "cab" + "abc"
    assert all(len(timing.rounds) == len(timing.calls) == 4 for timing in timings)


def test_the_collector_rests_within_rounds_only():
    states = []
    done = []
    gc.enable()
    contestant = Contestant("a", lambda: states.append(gc.isenabled()), min_seconds=0.0)
    race([contestant], rounds=2, device=CPU, on_round=lambda: done.append(gc.isenabled()))
    assert states[-2:] == [False, False]
    assert done == [True, True]


def test_short_work_is_warmed_up_for_a_while(monkeypatch):
    """By a clock that only the work itself moves on."""
    seconds = [0.0]

    def work():
        seconds[0] += 0.02

    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: seconds[0]))
    race([Contestant("a", work, min_seconds=0.05)], rounds=0, device=CPU)
    assert seconds[0] == pytest.approx(0.02 * (1 + 3))  # the first call does not count, three take long enough


def test_one_that_runs_out_of_memory_drops_out():
    def too_large():
        raise torch.OutOfMemoryError("CUDA out of memory")

    first, second = race([Contestant("a", too_large), Contestant("b", lambda: None, 0.0)], rounds=2, device=CPU)
    assert first.failure == "out of memory"
    assert first.median is None
    assert len(second.rounds) == 2
    assert ratio(first, second) is None
    with pytest.raises(RuntimeError, match="a bug"):
        race([Contestant("c", lambda: (_ for _ in ()).throw(RuntimeError("a bug")))], rounds=1, device=CPU)


def test_the_cpu_allocator_running_out_is_recognised():
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(error.value)


def test_ratios_are_taken_within_rounds():
    base, other = Timing(rounds=[2.0, 4.0, 100.0]), Timing(rounds=[1.0, 1.0, 40.0])
    found = ratio(base, other)
    assert (found.median, found.low, found.high) == (2.5, 2.0, 4.0)


@pytest.mark.parametrize(("share", "value"), [(0.5, 5), (0.9, 9), (0.99, 10), (0.0, 1), (1.0, 10)])
def test_percentiles(share, value):
    assert percentile([10, 9, 8, 7, 6, 5, 4, 3, 2, 1], share) == value


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


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_products_have_the_shapes_asked_for(precision, dtype):
    small, large = product_calls([(6, 4, 5), (7, 4, 3)], CPU, precision)
    assert len(small) == 1 + can_pack(dtype)
    assert all((call().shape, call().dtype) == ((6, 5), dtype) for call in small)
    assert all(call().shape == (7, 3) for call in large)
    [training] = product_calls([(6, 4, 5)], CPU, precision, training=True)[0]
    of_input, of_weight = training()
    assert (of_input.shape, of_weight.shape) == ((6, 4), (5, 4))


def test_peak_memory_is_what_a_call_adds():
    kept = torch.ones(2**22)  # 16 MiB that were there before do not count
    small = peak_memory(lambda: None, CPU)
    if small is None:
        pytest.skip("the peak of resident memory can be set back on Linux only")
    large = peak_memory(lambda: (torch.ones(2**24), None)[1], CPU)
    assert kept.numel() == 2**22
    assert small < 16
    assert 60 < large < 80


def test_saved_activations_leave_out_weights_and_count_storage_once():
    layer = nn.Linear(256, 256)
    x = torch.randn(1024, 256)
    assert saved_activations(lambda: layer(x).sum(), layer) == 1.0
    both = nn.Sequential(layer, nn.ReLU(), nn.Linear(256, 256))
    assert (
        saved_activations(lambda: both(x).sum(), both) == 2.0
    )  # the input, and the ReLU's result for both that need it


def test_forward_leaves_no_graph_and_training_moves_weights():
    model = stvideo.create_model(
        "deit_tiny_patch16_224", embed_dim=32, depth=1, num_heads=2, img_size=32, num_classes=3
    )
    clip = torch.randn(2, 3, 1, 32, 32)
    assert not forward_call(model, clip)().requires_grad
    assert forward_call(model, clip, "bf16")().dtype == torch.bfloat16
    assert not model.training
    before = {name: value.clone() for name, value in model.state_dict().items()}
    training_call(model, clip, 3)()
    assert model.training
    moved = Counter(not torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert moved[True] > moved[False]
    assert all(p.grad is None for p in model.parameters())


def test_gradients_that_are_there_are_no_activations():
    model = nn.Sequential(*(nn.Linear(2048, 2048) for _ in range(8)), nn.Linear(2048, 3))  # 16 MiB of weights each
    run = backward_call(model, torch.randn(2, 2048))
    run()
    found = peak_memory(run, CPU)
    if found is None:
        pytest.skip("the peak of resident memory can be set back on Linux only")
    assert found < 80  # a few new gradients on their way, not all eight
    assert all(p.grad is not None for p in model.parameters())
