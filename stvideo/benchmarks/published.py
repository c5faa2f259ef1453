"""The published tables, read from ``published.yaml`` beside this file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class PublishedRow:
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
        dense: label of the row in the same table that speed-ups refer to.
        tolerance: relative difference up to which a count agrees with the paper.
        may_be_less: further relative difference allowed downwards, for the reason that the table's notes give.
        note: anything else.
    """

    label: str
    model: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    size: Sequence[int] = (1, 224, 224)
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
class PublishedTable:
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
    rows: Sequence[PublishedRow]
    notes: Sequence[str] = ()


def load_tables() -> list[PublishedTable]:
    """Read all published tables; ``common`` of a table holds values, and arguments, that its rows share."""
    tables = []
    for table in yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")):
        common = table.pop("common", {})
        rows = [
            {**common, **row, "arguments": {**common.get("arguments", {}), **row.get("arguments", {})}}
            for row in table["rows"]
        ]
        tables.append(PublishedTable(**{**table, "rows": [PublishedRow(**row) for row in rows]}))
    return tables
