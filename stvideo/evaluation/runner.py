"""Run models over every view of every video, on however many processes, and merge the scores."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn

from stvideo.core.errors import StvideoError
from stvideo.evaluation.metrics import Predictions, merge_views
from stvideo.training.log import WARM_UP_STEPS

AVERAGES = ("softmax", "logits")


@dataclass
class Evaluation:
    """The outcome on the first process; elsewhere ``predictions`` is None.

    Attributes:
        clips_per_second: of all processes together, computing only: without waiting for data and the first batches.
        data_wait_share: share of the time that this process waited for data.
        unreadable: message by number of every video that was left out (only where the dataset allows that).
    """

    predictions: Predictions | None
    clips_per_second: float
    data_wait_share: float
    unreadable: dict[int, str] = field(default_factory=dict)


@dataclass
class _Share:
    """What one process has to hand over: facts of its rows, the scores of each model, its speeds."""

    rows: list[NDArray[Any]]  # (R, 3) video, view, label, a part per batch
    scores: list[list[NDArray[np.float32]]]  # per model (R, K), a part per batch
    speeds: list[float]
    unreadable: dict[int, str]
    stopped: bool


def evaluate_model(model: nn.Module, loader: Any, **settings: Any) -> Evaluation | None:
    """`evaluate_models` of a single model."""
    outcomes = evaluate_models([model], loader, **settings)
    return None if outcomes is None else outcomes[0]


@torch.inference_mode()
def evaluate_models(
    models: Sequence[nn.Module],
    loader: Any,
    *,
    accelerator: Accelerator,
    prepare: Callable[[dict[str, Tensor]], Tensor],
    num_videos: int,
    num_views: int,
    average: str = "softmax",
    should_stop: Callable[[], bool] = lambda: False,
    on_batch: Callable[[int], None] = lambda clips: None,
) -> list[Evaluation] | None:
    """Score every view with every model and average per video. Each video is decoded once for all of them.

    Args:
        models: unwrapped, on the device; all take the same clips.
        prepare: turns a loaded batch into a clip (B, 3, T, H, W) float on the device.
        average: what is averaged over the views of a video: ``softmax`` scores, or ``logits`` before the softmax.
        should_stop: asked after every batch; once any process says yes the evaluation is given up.
        on_batch: called with the number of clips of every batch, for a progress bar.

    Returns:
        One evaluation per model, or None when it was given up.

    Raises:
        StvideoError: a video cannot be read, or the views do not cover the set exactly once.
    """
    were_training = [model.training for model in models]
    for model in models:
        model.eval()
    share = _Share([], [[] for _ in models], [], {}, False)
    seconds_per_clip: list[list[float]] = [[] for _ in models]
    waited, started = loader.wait_seconds, time.perf_counter()
    for batch in loader:
        clip = prepare(batch)
        for number, model in enumerate(models):
            before = _now(accelerator)
            with accelerator.autocast():
                logits = model(clip).float()
            scores = (logits.softmax(dim=1) if average == "softmax" else logits).cpu().numpy()
            seconds_per_clip[number].append((time.perf_counter() - before) / len(clip))
            share.scores[number].append(scores)
        share.rows.append(torch.stack([batch["index"], batch["view"], batch["label"]], dim=1).numpy())
        on_batch(len(clip))
        share.stopped = should_stop()
        if share.stopped:
            break
    for model, was_training in zip(models, were_training, strict=True):
        model.train(was_training)
    wait_share = (loader.wait_seconds - waited) / max(time.perf_counter() - started, 1e-9)
    share.speeds = [_speed(seconds) for seconds in seconds_per_clip]
    share.unreadable = dict(getattr(loader, "unreadable", {}))
    shares = _gather(share)
    if any(other.stopped for other in shares):
        return None
    speeds = [sum(other.speeds[number] for other in shares) for number in range(len(models))]
    if not accelerator.is_main_process:
        return [Evaluation(None, speed, wait_share) for speed in speeds]
    unreadable = {video: message for other in shares for video, message in other.unreadable.items()}
    merged = _merge(shares, num_videos, num_views, average, unreadable)
    return [Evaluation(p, speed, wait_share, unreadable) for p, speed in zip(merged, speeds, strict=True)]


def _merge(
    shares: Sequence[_Share], num_videos: int, num_views: int, average: str, unreadable: dict[int, str]
) -> list[Predictions]:
    """The predictions of every model, from what all processes have."""
    parts = [part for share in shares for part in share.rows]
    if not parts or len(unreadable) >= num_videos:
        first = next(iter(unreadable.values()), "no video was given")
        raise StvideoError(f"evaluation: none of {num_videos} videos could be read; the first: {first}")
    index, view, truth = np.concatenate(parts).T
    complete = ~np.isin(index, list(unreadable))  # some views of a video may have come before it broke off
    return [
        merge_views(
            index[complete],
            view[complete],
            truth[complete],
            np.concatenate([part for share in shares for part in share.scores[number]])[complete],
            num_videos=num_videos - len(unreadable),
            num_views=num_views,
            average=average,
        )
        for number in range(len(shares[0].scores))
    ]


def _gather(share: _Share) -> list[_Share]:
    """What every process has, on the first one; elsewhere only the small things."""
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return [share]
    world_size, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
    small = _Share([], [[] for _ in share.scores], share.speeds, share.unreadable, share.stopped)
    shares: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(shares, small)
    if any(other.stopped for other in shares):
        return shares
    everything: list[Any] | None = [None] * world_size if rank == 0 else None
    torch.distributed.gather_object(share, everything, dst=0)
    return everything or shares


def _speed(seconds_per_clip: list[float]) -> float:
    """Clips per second of computing: the median over the batches, without the first ones if there are more."""
    steady = seconds_per_clip[WARM_UP_STEPS:] or seconds_per_clip
    return 1.0 / max(statistics.median(steady), 1e-9) if steady else 0.0


def _now(accelerator: Accelerator) -> float:
    """The clock, once the device has finished what it was given before."""
    if accelerator.device.type == "cuda":
        torch.cuda.synchronize(accelerator.device)
    return time.perf_counter()
