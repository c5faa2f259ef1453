"""One forward pass or one training step of a model, ready to be timed, and the memory that a call needs."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn


def clock() -> float:
    """Read the clock, in seconds, once the GPU has done what it was given."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def random_clip(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Draw a standard-normal clip (B, 3, T, H, W), the same for all models of that shape."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)


def forward_step(run: Callable[[Tensor], Any], precision: str = "fp32") -> Callable[[Tensor], Any]:
    """Wrap ``run`` as inference on a clip.

    Args:
        run: from a clip to logits; a module is put in evaluation mode.
        precision: ``fp32`` or ``bf16`` (automatic mixed precision).
    """
    if isinstance(run, nn.Module):
        run.eval()

    def step(clip: Tensor) -> Any:
        with torch.inference_mode(), _mixed_precision(clip.device, precision):
            return run(clip)

    return step


def training_step(
    run: Callable[[Tensor], Any], model: nn.Module, precision: str = "fp32", update: bool = True
) -> Callable[[Tensor], None]:
    """Wrap ``run`` as a training step on a clip: forward, cross-entropy, backward, AdamW.

    The learning rate is 0: the optimiser does all of its arithmetic and the weights stay as they are.

    Args:
        run: from a clip to logits (B, K): ``model`` itself, or what was compiled from it.
        model: whose weights are trained; in training mode afterwards.
        precision: ``fp32`` or ``bf16`` (automatic mixed precision; weights stay float32).
        update: False leaves the gradients in place instead of updating the weights. From the second call on,
            activations are then all that a call adds to memory.
    """
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)

    def step(clip: Tensor) -> None:
        labels = torch.zeros(len(clip), dtype=torch.long, device=clip.device)
        with _mixed_precision(clip.device, precision):
            loss = nn.functional.cross_entropy(run(clip).float(), labels)
        loss.backward()
        if update:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return step


def peak_memory(run: Callable[[], Any]) -> float | None:
    """Measure the MiB that torch allocates on the current GPU, at the peak of ``run``, beyond those before; None on a
    CPU."""
    if not torch.cuda.is_initialized():
        return None
    gc.collect()
    torch.cuda.synchronize()
    held = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - held) / 2**20


def saved_activations(run: Callable[[], Any], model: nn.Module) -> float:
    """Count the MiB that the forward pass inside ``run`` keeps for the backward pass, weights of ``model`` left out."""
    own = {value.untyped_storage().data_ptr() for value in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        run()
    return sum(kept.values()) / 2**20


def _mixed_precision(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
