"""One optimiser step: forward and backward over the accumulated batches, clipping, update."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

Batch = dict[str, Tensor]


@dataclass
class StepResult:
    """What one optimiser step did.

    Attributes:
        loss: sum of the losses of this process's clips.
        correct: how many of them were classified right (against the likelier label where two are mixed).
        clips: how many clips this process saw.
        substituted: how many of them stand in for an unreadable video.
        grad_norm: of the global gradient, before clipping.
        skipped: the gradient was not finite and the weights were left alone.
        videos: numbers of the videos that this process saw.
    """

    loss: float
    correct: float
    clips: int
    substituted: int
    grad_norm: float
    skipped: bool
    videos: list[int]


def seed_step(seed: int, step: int, rank: int) -> None:
    """Make every draw of a step (dropout, drop path, random token dropping) a function of seed, step and process.

    A resumed run therefore draws what the uninterrupted one would have, without any stored generator state.
    """
    torch.manual_seed((seed * 1_000_003 + step) * 65_537 + rank)


def take_step(
    *,
    accelerator: Accelerator,
    model: nn.Module,
    criterion: Callable[[Tensor, Tensor, Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Batch],
    prepare: Callable[[Batch], tuple[Tensor, Tensor]],
    clip_grad_norm: float | None,
) -> StepResult:
    """One optimiser step over ``batches``, whose gradients are averaged.

    Args:
        model, optimizer: as Accelerate prepared them.
        prepare: turns a loaded batch into (clip (B, 3, T, H, W) float, target) on the device.

    A gradient that is not finite is the same on every process once it has been averaged, so all of them skip the
    update together and no further communication is needed.
    """
    optimizer.zero_grad()
    losses, correct, clips, substituted = 0.0, 0.0, 0, 0
    videos: list[int] = []
    for number, batch in enumerate(batches):
        is_last = number == len(batches) - 1
        with nullcontext() if is_last else accelerator.no_sync(model):
            clip, target = prepare(batch)
            logits = model(clip)
            with accelerator.autocast():  # the teacher of a distillation runs in here
                loss = criterion(logits, target, clip)
            accelerator.backward(loss / len(batches))
        hard = target if target.ndim == 1 else target.argmax(dim=1)
        losses += float(loss.detach()) * len(clip)
        correct += float((logits.detach().argmax(dim=1) == hard).sum())
        clips += len(clip)
        videos += batch["index"].tolist()
        substituted += int(batch["substituted"].sum()) if "substituted" in batch else 0
    limit = math.inf if clip_grad_norm is None else clip_grad_norm
    norm: Any = accelerator.clip_grad_norm_(model.parameters(), limit)
    grad_norm = float(norm)
    finite = math.isfinite(grad_norm)
    if finite or accelerator.scaler is not None:  # the fp16 scaler skips by itself and lowers its scale
        optimizer.step()
    return StepResult(losses, correct, clips, substituted, grad_norm, not finite, videos)
