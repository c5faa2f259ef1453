"""The learning rate as a pure function of the optimiser step.

Nothing is stored, so nothing can be lost on resume, and the number of processes cannot shorten the schedule.
"""

from __future__ import annotations

import math

from stvideo.settings.schema import TrainConfig


def learning_rate(config: TrainConfig, peak: float, step: int, steps_per_epoch: int) -> float:
    """Compute the learning rate of optimiser step ``step`` (from 0).

    Linear warm-up over ``warmup_epochs``, then until the end of ``epochs``: "cosine" from ``peak`` to ``min_lr``
    (scaled as ``peak`` where there is an ``lr_batch_size``), "step" (times ``step_gamma`` at each of ``step_epochs``),
    or "constant". ``max_steps`` ends a run early without bending its schedule, so that a run may be continued by
    raising it.
    """
    warmup_steps = round(config.warmup_epochs * steps_per_epoch)
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    if config.schedule == "step":
        passed = sum(step >= round(epoch * steps_per_epoch) for epoch in config.step_epochs)
        return peak * config.step_gamma**passed
    if config.schedule == "cosine":
        after = max(1, config.epochs * steps_per_epoch - warmup_steps)
        progress = min(1.0, (step - warmup_steps) / after)
        # Scaled with the global batch as the peak is: on few devices a fixed minimum may lie above the peak.
        lowest = config.min_lr * (peak / config.lr if config.lr_batch_size and config.lr else 1.0)
        return lowest + (peak - lowest) * 0.5 * (1.0 + math.cos(math.pi * progress))
    return peak
