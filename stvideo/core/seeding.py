"""The seed of an optimiser step, from which everything random in it is drawn."""

from __future__ import annotations

NO_PROCESS = 65_536
"""A rank that no process has, for draws that all processes share and that are not those of `step_seed` without one."""


def step_seed(seed: int, step: int, rank: int | None = None) -> int:
    """Combine the seed of a run, the number of an optimiser step and the rank of a process into a number below 2**64.

    A resumed run draws from it what the uninterrupted one would have, without any stored generator state. Without a
    rank it is the same for all processes.
    """
    number = seed * 1_000_003 + step
    if rank is not None:
        number = number * 65_537 + rank
    return number % 2**64
