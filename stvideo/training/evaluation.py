"""Run a model over every view of every video, on however many processes, and merge the scores."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn

from stvideo.metrics import Predictions, merge_views
from stvideo.training.log import Throughput


@dataclass
class Evaluation:
    """The outcome on the first process; elsewhere ``predictions`` is None.

    Attributes:
        clips_per_second: of all processes together, computing only: without waiting for data and the first batches.
        data_wait_share: share of the time that this process waited for data.
    """

    predictions: Predictions | None
    clips_per_second: float
    data_wait_share: float


@torch.inference_mode()
def evaluate_model(
    model: nn.Module,
    loader: Any,
    *,
    accelerator: Accelerator,
    prepare: Callable[[dict[str, Tensor]], Tensor],
    num_videos: int,
    num_views: int,
    should_stop: Callable[[], bool] = lambda: False,
    on_batch: Callable[[int], None] = lambda clips: None,
) -> Evaluation | None:
    """Score every view and average per video.

    Args:
        model: unwrapped, on the device.
        prepare: turns a loaded batch into a clip (B, 3, T, H, W) float on the device.
        should_stop: asked after every batch; once any process says yes the evaluation is given up.
        on_batch: called with the number of clips of every batch, for a progress bar.

    Returns:
        The evaluation, or None when it was given up.

    Raises:
        StvideoError: a video cannot be read, or the views do not cover the set exactly once.
    """
    was_training = model.training
    model.eval()
    rows: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]] = []
    speed, waited, started = Throughput(), loader.wait_seconds, time.perf_counter()
    stopped = False
    for batch in loader:
        before = time.perf_counter()
        with accelerator.autocast():
            scores = model(prepare(batch)).float().softmax(dim=1).cpu().numpy()
        speed.add(time.perf_counter() - before, len(scores))
        rows.append((batch["index"].numpy(), batch["view"].numpy(), batch["label"].numpy(), scores))
        on_batch(len(scores))
        stopped = should_stop()
        if stopped:
            break
    model.train(was_training)
    elapsed = time.perf_counter() - started
    wait_share = (loader.wait_seconds - waited) / max(elapsed, 1e-9)
    gathered = _gather(rows, speed.clips_per_second() or len(rows) / max(elapsed, 1e-9), stopped)
    if any(other_stopped for _, _, other_stopped in gathered):
        return None
    total_speed = sum(clips_per_second for _, clips_per_second, _ in gathered)
    predictions = None
    if accelerator.is_main_process:
        parts = [row for others, _, _ in gathered for row in others]
        index, view, label, scores = (np.concatenate([part[field] for part in parts]) for field in range(4))
        predictions = merge_views(index, view, label, scores, num_videos=num_videos, num_views=num_views)
    return Evaluation(predictions, total_speed, wait_share)


def _gather(rows: list[Any], clips_per_second: float, stopped: bool) -> list[tuple[list[Any], float, bool]]:
    """What every process has, on the first one; elsewhere only the numbers."""
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return [(rows, clips_per_second, stopped)]
    world_size, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
    numbers: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(numbers, (clips_per_second, stopped))
    if any(other_stopped for _, other_stopped in numbers):
        return [([], speed, other_stopped) for speed, other_stopped in numbers]
    everything: list[Any] | None = [None] * world_size if rank == 0 else None
    torch.distributed.gather_object(rows, everything, dst=0)
    return [(part, *number) for part, number in zip(everything or [[]] * world_size, numbers, strict=True)]
