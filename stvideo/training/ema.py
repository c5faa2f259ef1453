"""Exponential moving average of the weights: smoother than the last step, and what gets evaluated and saved."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from stvideo.runtime.sharding import local

Network = TypeVar("Network", bound=nn.Module)


class WeightAverage(Generic[Network]):
    """Keeps ``average`` <- decay * average + (1 - decay) * weights after every optimiser step.

    Early on the decay is lowered to (1 + step) / (10 + step), so that the random start is forgotten at once.
    Buffers (batch-norm statistics) are copied, not averaged.

    Args:
        model: whose weights are averaged.
        decay: share of the average that stays at every step.
        device: where the average waits, e.g. ``cpu`` to spare a GPU's memory; None for where the model is.
    """

    def __init__(self, model: Network, decay: float, device: str | None = None) -> None:
        self.decay = decay
        self.device = device
        self.model = copy.deepcopy(model)
        self.model.eval().requires_grad_(False)

    @contextmanager
    def on(self, device: torch.device) -> Iterator[None]:
        """Bring the average to ``device`` for as long as it is evaluated there."""
        if self.device is not None:
            self.model.to(device)
        yield
        if self.device is not None:
            self.model.to(self.device)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights of ``model`` after optimiser step ``step`` (from 0)."""
        decay = min(self.decay, (1.0 + step) / (10.0 + step))
        averages: list[Tensor] = []
        weights: list[Tensor] = []
        for average, weight in zip(self.model.parameters(), model.parameters(), strict=True):
            averages.append(local(average))
            weights.append(local(weight.detach()).to(average.device, average.dtype))
        torch._foreach_lerp_(averages, weights, 1.0 - decay)
        for kept, buffer in zip(self.model.buffers(), model.buffers(), strict=True):
            kept.copy_(buffer)
