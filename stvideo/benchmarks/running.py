"""One forward pass or one training step as a function without arguments, ready to be timed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn


def random_clip(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """The same standard-normal input for every model of that shape."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)


def forward_call(model: Callable[[Tensor], Any], clip: Tensor, precision: str = "fp32") -> Callable[[], Any]:
    """Inference on ``clip``; a module is in evaluation mode afterwards."""
    if isinstance(model, nn.Module):
        model.eval()

    def call() -> Any:
        with torch.inference_mode(), mixed_precision(clip.device, precision):
            return model(clip)

    return call


def training_call(
    model: nn.Module, clip: Tensor, num_classes: int, precision: str = "fp32", unwrapped: nn.Module | None = None
) -> Callable[[], Any]:
    """One step on ``clip``: forward, cross-entropy with random labels, backward, AdamW.

    Args:
        model: in training mode afterwards.
        clip: the batch.
        num_classes: for the labels.
        precision: ``fp32`` or ``bf16`` (automatic mixed precision; weights stay float32).
        unwrapped: the model itself where ``model`` is a compiled one.
    """
    model.train()
    labels = torch.randint(num_classes, clip.shape[:1], generator=torch.Generator().manual_seed(0)).to(clip.device)
    optimizer = torch.optim.AdamW((unwrapped or model).parameters(), lr=1e-6)

    def call() -> None:
        with mixed_precision(clip.device, precision):
            loss = nn.functional.cross_entropy(model(clip).float(), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return call


def backward_call(model: nn.Module, clip: Tensor, precision: str = "fp32") -> Callable[[], Any]:
    """Forward and backward on ``clip``, into gradients that are there already: what activations need is then all that
    a call adds to memory. The gradients are left behind."""
    model.train()
    labels = torch.zeros(len(clip), dtype=torch.long, device=clip.device)

    def call() -> None:
        with mixed_precision(clip.device, precision):
            loss = nn.functional.cross_entropy(model(clip).float(), labels)
        loss.backward()

    return call


def mixed_precision(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Automatic mixed precision for ``bf16``, nothing for ``fp32``."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
