"""Paired statistics of right and wrong answers: is one result better than another on the same videos?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BLOCKS, DRAWS = 10, 1000  # of the bootstrap: 10,000 draws, in blocks for the sake of memory
LEVEL = 0.95
Z = 1.959964  # standard normal quantile of a two-sided 95 % interval


@dataclass(frozen=True)
class PairedDifference:
    """The accuracy of A minus that of B, in points (per cent of the videos).

    Attributes:
        difference: accuracy of A minus accuracy of B, each the mean over its seeds.
        low, high: its 95 % confidence interval, from a bootstrap over videos and seeds together.
        only_a, only_b: videos that A alone, and B alone, got right; counted over all seeds.
        p_value: of McNemar's exact test that neither is better (two-sided); None with several seeds, whose answers to
            one video are not independent.
        videos: how many both were asked.
    """

    difference: float
    low: float
    high: float
    only_a: int
    only_b: int
    p_value: float | None
    videos: int

    def in_words(self) -> str:
        """Format ``"+1.31 points, 95 % interval [+0.62, +2.01]"``."""
        return f"{self.difference:+.2f} points, 95 % interval [{self.low:+.2f}, {self.high:+.2f}]"


def paired_difference(a: NDArray[np.bool_], b: NDArray[np.bool_], seed: int = 0) -> PairedDifference:
    """Compare the answers of A and B video by video, and where there are several runs of each, seed by seed.

    Args:
        a, b: (V,) or (S, V) whether each video was recognised, by the run of each seed; the same videos and seeds in
            the same order.
        seed: of the bootstrap.
    """
    a, b = np.atleast_2d(a), np.atleast_2d(b)
    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    points = 100.0 * (a.astype(np.int8) - b.astype(np.int8))
    low, high = mean_interval(points, seed)
    return PairedDifference(
        difference=float(points.mean()),
        low=low,
        high=high,
        only_a=only_a,
        only_b=only_b,
        p_value=mcnemar(only_a, only_b) if len(a) == 1 else None,
        videos=a.shape[1],
    )


def mean_interval(values: NDArray[np.floating], seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean of (S, V) values, from a bootstrap that draws seeds and videos with replacement.

    Each draw takes S of the seeds and V of the videos, and averages the values where they cross (Owen, "The pigeonhole
    bootstrap", 2007); with one seed this is the bootstrap over videos. Videos with the same column of values are
    exchangeable, so how often each such column is drawn follows a multinomial distribution: exact and fast. Two or
    three seeds say little about how far seeds lie apart; the interval is then rather too narrow.
    """
    seeds, videos = values.shape
    columns, counts = np.unique(values, axis=1, return_counts=True)
    generator = np.random.default_rng(seed)
    means = []
    for _ in range(BLOCKS):
        of_seeds = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=DRAWS)
        of_columns = generator.multinomial(videos, counts / videos, size=DRAWS)
        means.append(((of_seeds @ columns) * of_columns).sum(axis=1) / (seeds * videos))
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def mcnemar(only_a: int, only_b: int) -> float:
    """Test exactly, two-sided, how likely so uneven a split of the videos on which A and B differ is (McNemar).

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
