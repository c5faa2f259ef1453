"""One forward pass or training step, and its memory. Nothing here looks at how long anything took."""

import torch
from torch import nn

import stvideo
from stvideo.benchmarks.steps import forward_step, peak_memory, saved_activations, training_step


def test_saved_activations_leave_out_weights_and_count_storage_once():
    layer = nn.Linear(256, 256)
    x = torch.randn(1024, 256)
    assert saved_activations(lambda: layer(x).sum(), layer) == 1.0
    both = nn.Sequential(layer, nn.ReLU(), nn.Linear(256, 256))
    # the input, and the ReLU's result for both that need it
    assert saved_activations(lambda: both(x).sum(), both) == 2.0


def test_forward_leaves_no_graph():
    model = nn.Linear(4, 3)
    clip = torch.randn(2, 4)
    assert not forward_step(model)(clip).requires_grad
    assert forward_step(model, "bf16")(clip).dtype == torch.bfloat16
    assert not model.training


def test_training_updates_every_weight_by_nothing():
    model = stvideo.create_model(
        "deit_tiny_patch16_224", embed_dim=32, depth=1, num_heads=2, img_size=32, num_classes=3
    ).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    seen = set()
    for name, parameter in model.named_parameters():
        parameter.register_post_accumulate_grad_hook(lambda _, name=name: seen.add(name))
    training_step(model, model)(torch.randn(2, 3, 1, 32, 32))
    assert model.training
    assert seen == {name for name, _ in model.named_parameters()}
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_gradients_stay_without_an_update():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 3))
    step = training_step(model, model, update=False)
    step(torch.randn(2, 8))
    before = [parameter.grad.clone() for parameter in model.parameters()]
    step(torch.randn(2, 8))
    assert all((parameter.grad != old).any() for parameter, old in zip(model.parameters(), before, strict=True))


def test_peak_memory_is_what_a_call_allocates_on_a_gpu():
    if not torch.cuda.is_available():
        assert peak_memory(lambda: None) is None
        return
    kept = torch.ones(2**22, device="cuda")  # 16 MiB that were there before do not count
    assert 63 < peak_memory(lambda: torch.ones(2**24, device="cuda")) < 80
    assert kept.numel() == 2**22
