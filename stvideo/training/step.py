"""One optimiser step: forward and backward over the accumulated batches, clipping, update."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from stvideo.core.out_of_memory import is_out_of_memory
from stvideo.runtime.sharding import gradient_norm
from stvideo.training.micro_batches import MicroBatches

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

    loss: float = 0.0
    correct: float = 0.0
    clips: int = 0
    substituted: int = 0
    grad_norm: float = 0.0
    skipped: bool = False
    videos: list[int] = field(default_factory=list)


def seed_step(seed: int, step: int, rank: int) -> None:
    """Make every draw of a step (dropout, drop path, random token dropping) a function of seed, step and process.

    A resumed run therefore draws what the uninterrupted one would have, without any stored generator state.
    """
    torch.manual_seed(((seed * 1_000_003 + step) * 65_537 + rank) % 2**64)


def take_step(
    *,
    accelerator: Accelerator,
    model: nn.Module,
    criterion: Callable[[Tensor, Tensor, Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Batch],
    prepare: Callable[[Batch], tuple[Tensor, Tensor]],
    clip_grad_norm: float | None,
    seed: Callable[[], None] = lambda: None,
    micro_batches: MicroBatches | None = None,
) -> StepResult:
    """One optimiser step over ``batches``, whose gradients are averaged.

    Args:
        model, optimizer: as Accelerate prepared them.
        prepare: turns a loaded batch into (clip (B, 3, T, H, W) float, target) on the device.
        seed: makes every draw of the step what it is; called again when the step is repeated.
        micro_batches: repeat the step in smaller pieces where memory runs out; ``model`` is then the bare network.

    A gradient that is not finite is the same on every process once it has been averaged, so all of them skip the
    update together and no further communication is needed.
    """
    result: StepResult | None = None
    while result is None:
        optimizer.zero_grad()
        seed()
        try:
            size = micro_batches.size if micro_batches else None
            result = _accumulate(accelerator, model, criterion, batches, prepare, size)
        except (RuntimeError, MemoryError) as error:  # not always torch.OutOfMemoryError: cuBLAS has one of its own
            if micro_batches is None or not is_out_of_memory(error):
                raise
        # Outside of the handler, whose traceback keeps the activations alive.
        if micro_batches is not None and micro_batches.must_repeat(ran_out=result is None):
            result = None
    if micro_batches is not None:
        micro_batches.average(model.parameters())
    result.grad_norm = _clipped_norm(accelerator, model, clip_grad_norm)
    result.skipped = not math.isfinite(result.grad_norm)
    if not result.skipped or accelerator.scaler is not None:  # the fp16 scaler skips by itself and lowers its scale
        optimizer.step()
    return result


def _clipped_norm(accelerator: Accelerator, model: nn.Module, limit: float | None) -> float:
    """Norm of the global gradient, which is then cut to ``limit``; without one no gradient is written to."""
    if limit is None:
        accelerator.unscale_gradients()
        return float(gradient_norm(model.parameters()))
    norm: Any = accelerator.clip_grad_norm_(model.parameters(), limit)
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)


def _accumulate(
    accelerator: Accelerator,
    model: nn.Module,
    criterion: Callable[[Tensor, Tensor, Tensor], Tensor],
    batches: Sequence[Batch],
    prepare: Callable[[Batch], tuple[Tensor, Tensor]],
    size: int | None,
) -> StepResult:
    """Forward and backward over all batches, ``size`` clips at a time (None: a whole batch)."""
    result = StepResult()
    for number, batch in enumerate(batches):
        clip, target = prepare(batch)
        starts = range(0, len(clip), size or len(clip))
        for start in starts:
            is_last = number == len(batches) - 1 and start == starts[-1]
            piece = slice(start, start + starts.step)
            with nullcontext() if is_last else accelerator.no_sync(model):
                logits = model(clip[piece])
                with accelerator.autocast():  # the teacher of a distillation runs in here
                    loss = criterion(logits, target[piece], clip[piece])
                accelerator.backward(loss * (len(logits) / (len(clip) * len(batches))))
            hard = target[piece] if target.ndim == 1 else target[piece].argmax(dim=1)
            result.loss += float(loss.detach()) * len(logits)
            result.correct += float((logits.detach().argmax(dim=1) == hard).sum())
        result.clips += len(clip)
        result.videos += batch["index"].tolist()
        result.substituted += int(batch["substituted"].sum()) if "substituted" in batch else 0
    return result
