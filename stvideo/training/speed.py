"""Speeds that can be compared: all models take turns in one process, so that a busy machine slows them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Speed:
    """Clips per second of computing, the median over the rounds."""

    training: float
    evaluation: float


def side_by_side(
    models: Mapping[str, nn.Module], batch_size: int, rounds: int = 12, warm_up: int = 2
) -> dict[str, Speed]:
    """Time one training step and one evaluation batch of every model in each round; clips are random.

    Args:
        models: by name, each with ``example_shape()``; their weights are changed.
        batch_size: clips per step.
        rounds: measured rounds, after ``warm_up`` that are not.
    """
    seconds: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in models}
    clips = {name: torch.randn(batch_size, *model.example_shape()[1:]) for name, model in models.items()}  # type: ignore[operator]
    optimizers = {name: torch.optim.AdamW(model.parameters(), lr=1e-6) for name, model in models.items()}
    for turn in range(warm_up + rounds):
        for name, model in models.items():
            step = _timed(lambda m=model, n=name: _train(m, clips[n], optimizers[n]))  # type: ignore[misc]
            batch = _timed(lambda m=model, n=name: _evaluate(m, clips[n]))  # type: ignore[misc]
            if turn >= warm_up:
                seconds[name][0].append(step)
                seconds[name][1].append(batch)
    return {
        name: Speed(*(batch_size / statistics.median(values) for values in (steps, batches)))
        for name, (steps, batches) in seconds.items()
    }


def _timed(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _train(model: nn.Module, clip: Tensor, optimizer: torch.optim.Optimizer) -> None:
    model.train()
    optimizer.zero_grad()
    functional.cross_entropy(model(clip), torch.zeros(len(clip), dtype=torch.long)).backward()
    optimizer.step()


@torch.inference_mode()
def _evaluate(model: nn.Module, clip: Tensor) -> None:
    model.eval()
    model(clip)
