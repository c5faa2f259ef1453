"""What a row of a published table holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

IMAGE = (1, 224, 224)


@dataclass(frozen=True)
class Row:
    """One row of a published table.

    Attributes:
        label: what the paper calls it.
        model: name in `stvideo.list_models`; None for a figure of others that is only quoted.
        arguments: for `stvideo.create_model`.
        size: input (frames, height, width).
        gmacs: the published figure as printed; None where no paper prints one.
        derived: how ``gmacs`` was worked out, where it is not printed itself.
        parameters: published number of parameters, in millions as printed, or exact.
        top1: published top-1 accuracy in percent.
        speedup: published throughput over the dense model.
        dense: label of the row in the same block that speed-ups refer to.
        tolerance: relative difference up to which a count agrees with the paper.
        may_be_less: further relative difference allowed downwards, for the reason that the block gives.
        note: anything else.
    """

    label: str
    model: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    size: tuple[int, int, int] = IMAGE
    gmacs: str | None = None
    derived: str | None = None
    parameters: str | None = None
    top1: str | None = None
    speedup: str | None = None
    dense: str | None = None
    tolerance: float = 0.01
    may_be_less: float = 0.0
    note: str | None = None


@dataclass(frozen=True)
class Block:
    """Rows from one source.

    Attributes:
        key: what ``rows=`` takes.
        title: heading.
        source: where the figures are printed.
        rows: in the order of the paper.
        notes: what a reader must know to compare.
    """

    key: str
    title: str
    source: str
    rows: Sequence[Row]
    notes: Sequence[str] = ()
