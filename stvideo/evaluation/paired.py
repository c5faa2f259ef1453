"""Is one result better than another on the same videos? Paired statistics of right and wrong answers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 10_000
LEVEL = 0.95
Z = 1.959964  # standard normal quantile of a two-sided 95 % interval


@dataclass(frozen=True)
class PairedDifference:
    """A minus B, in points (per cent of the videos).

    Attributes:
        difference: accuracy of A minus accuracy of B.
        low, high: its 95 % confidence interval, from a bootstrap over videos.
        only_a, only_b: videos that A alone, and B alone, got right.
        p_value: of McNemar's exact test that neither is better (two-sided).
        videos: how many both were asked.
    """

    difference: float
    low: float
    high: float
    only_a: int
    only_b: int
    p_value: float
    videos: int

    def in_words(self) -> str:
        """``"+1.31 points, 95 % interval [+0.62, +2.01]"``."""
        return f"{self.difference:+.2f} points, 95 % interval [{self.low:+.2f}, {self.high:+.2f}]"


def paired_difference(a: NDArray[np.bool_], b: NDArray[np.bool_], seed: int = 0) -> PairedDifference:
    """How much more often ``a`` is right than ``b``, video by video.

    A bootstrap draws as many videos with replacement. Only three things can come out for a video (A alone right, B
    alone, or no difference), so a draw of all videos is one draw from a multinomial distribution: exact and fast.

    Args:
        a, b: (V,) whether each video was recognised; the same videos in the same order.
        seed: of the draws.
    """
    videos = len(a)
    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    shares = np.array([only_a, only_b, videos - only_a - only_b]) / videos
    counts = np.random.default_rng(seed).multinomial(videos, shares, size=DRAWS)
    differences = 100.0 * (counts[:, 0] - counts[:, 1]) / videos
    low, high = np.quantile(differences, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return PairedDifference(
        difference=100.0 * (only_a - only_b) / videos,
        low=float(low),
        high=float(high),
        only_a=only_a,
        only_b=only_b,
        p_value=mcnemar(only_a, only_b),
        videos=videos,
    )


def mcnemar(only_a: int, only_b: int) -> float:
    """McNemar's exact test, two-sided: how likely so uneven a split of the videos on which A and B differ is.

    Twice the lower tail of a binomial distribution with probability one half, at most 1.
    """
    total, fewer = only_a + only_b, min(only_a, only_b)
    logs = [math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1) for k in range(fewer + 1)]
    return min(1.0, 2.0 * sum(math.exp(value - total * math.log(2.0)) for value in logs))


def accuracy_interval(right: int, videos: int) -> tuple[float, float]:
    """95 % interval of an accuracy in per cent (Wilson's, which holds near 0 and 100 too)."""
    share = right / videos
    center = (share + Z**2 / (2 * videos)) / (1 + Z**2 / videos)
    half = Z / (1 + Z**2 / videos) * math.sqrt(share * (1 - share) / videos + Z**2 / (4 * videos**2))
    return 100.0 * max(center - half, 0.0), 100.0 * min(center + half, 1.0)
