"""One optimiser step: forward and backward over the accumulated batches, clipping, update."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from stvideo.core.out_of_memory import is_out_of_memory
from stvideo.runtime.sharding import gradient_norm
from stvideo.training.losses import TrainingLoss
from stvideo.training.micro_batches import MicroBatches
from stvideo.training.progress import StepResult

Batch = dict[str, Tensor]


def sum_over_processes(result: StepResult, flag: bool, accelerator: Accelerator) -> tuple[StepResult, bool]:
    """Add up the sums of all processes, and tell whether ``flag`` is set on any of them, in one exchange."""
    own = [result.loss, result.correct, result.clips, result.substituted, float(flag), *result.terms.values()]
    precise = torch.float64 if accelerator.device.type == "cpu" else torch.float32
    total = accelerator.reduce(torch.tensor(own, dtype=precise, device=accelerator.device), "sum")
    loss, correct, clips, substituted, flags, *terms = total.tolist()
    by_name = dict(zip(result.terms, terms, strict=True))
    total_result = replace(result, loss=loss, correct=correct, clips=clips, substituted=substituted, terms=by_name)
    return total_result, flags > 0


def take_step(
    *,
    accelerator: Accelerator,
    model: nn.Module,
    criterion: TrainingLoss,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Batch],
    prepare: Callable[[Batch], tuple[Tensor, Tensor]],
    clip_grad_norm: float | None,
    seed: Callable[[], None] = lambda: None,
    micro_batches: MicroBatches | None = None,
) -> StepResult:
    """Take one optimiser step over ``batches``, whose gradients are averaged.

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
    """Return the norm of the global gradient and cut it to ``limit``; without one no gradient is written to."""
    if limit is None:
        accelerator.unscale_gradients()
        return float(gradient_norm(model.parameters()))
    norm: Any = accelerator.clip_grad_norm_(model.parameters(), limit)
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)


def _accumulate(
    accelerator: Accelerator,
    model: nn.Module,
    criterion: TrainingLoss,
    batches: Sequence[Batch],
    prepare: Callable[[Batch], tuple[Tensor, Tensor]],
    size: int | None,
) -> StepResult:
    """Run forward and backward over all batches, ``size`` clips at a time (None: a whole batch)."""
    result = StepResult()
    for number, batch in enumerate(batches):
        clip, target = prepare(batch)
        starts = range(0, len(clip), size or len(clip))
        for start in starts:
            is_last = number == len(batches) - 1 and start == starts[-1]
            piece = slice(start, start + starts.step)
            with nullcontext() if is_last else accelerator.no_sync(model):
                output = model(clip[piece], return_tokens=True) if criterion.needs_tokens else model(clip[piece])
                logits, tokens = output if criterion.needs_tokens else (output, None)
                with accelerator.autocast():  # the teacher of a distillation runs in here
                    loss, terms = criterion(logits, target[piece], clip[piece], tokens)
                accelerator.backward(loss * (len(logits) / (len(clip) * len(batches))))
            result.add(loss, terms, logits, target[piece])
        result.videos += batch["index"].tolist()
        result.substituted += int(batch["substituted"].sum()) if "substituted" in batch else 0
    return result
