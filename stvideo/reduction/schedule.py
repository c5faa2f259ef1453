"""The keep-rate schedule of training (EViT, section 4.1)."""

import math


def keep_rate_at(epoch: float, base: float, start_epoch: float, shrink_epochs: float) -> float:
    """Keep rate at a point of training.

    1 until ``start_epoch``, then half a cosine down to ``base`` over ``shrink_epochs``, then ``base``.

    Args:
        epoch: epochs trained so far; the fraction counts, so that the rate changes every iteration.
        base: the final keep rate, in (0, 1].
        start_epoch: epochs before the shrinking starts.
        shrink_epochs: epochs that the shrinking takes; 0 means at once.
    """
    if epoch < start_epoch:
        return 1.0
    if epoch >= start_epoch + shrink_epochs:
        return base
    progress = (epoch - start_epoch) / shrink_epochs
    return base + (1.0 - base) * 0.5 * (1.0 + math.cos(math.pi * progress))
