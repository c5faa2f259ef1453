"""The published tables beside what this package counts and, on request, measures.

    python -m stvideo.benchmark paper-tables                                  every row (about a minute)
    python -m stvideo.benchmark paper-tables rows=deit,evit                   some tables
    python -m stvideo.benchmark paper-tables rows=evit measure=true           the clock as well
    python -m stvideo.benchmark paper-tables output=tables                    also as text, CSV, Markdown and JSON

Columns: the published GMACs, those counted here, their difference, whether that agrees, parameters, published top-1 and
published speed-up, and with measure=true the speed-up measured here over the dense model of the row: both take turns
in every round, in one process, on random weights.

    rows=all            tables to show: {keys}
    measure=false       time the models too; all tables take hours on a CPU, so choose rows
    batch_size=8        clips or images per call
    rounds=5            interleaved rounds
    device=auto         auto, cpu or cuda
    precision=fp32      fp32 or bf16
    output=null         folder for paper-tables.txt, .csv, .md and .json
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from tqdm import tqdm

from stvideo.benchmarks.checks import check_at_least, check_choice, choose_device
from stvideo.benchmarks.entrants import PRECISIONS
from stvideo.benchmarks.published import PublishedRow, PublishedTable, load_tables
from stvideo.benchmarks.report import Column, Report, Section, show_ratio
from stvideo.benchmarks.steps import forward_step, random_clip
from stvideo.benchmarks.timing import race, ratio
from stvideo.core.errors import StvideoError, nearest
from stvideo.core.macs import count_macs
from stvideo.models.registry import list_models
from stvideo.settings.cli import read_command_line
from stvideo.weights.factory import create_model

NOT_HERE = "not in this version"


@dataclass
class PaperTableSettings:
    """The settings of the command line."""

    rows: str = "all"
    measure: bool = False
    batch_size: int = 8
    rounds: int = 5
    device: str = "auto"
    precision: str = "fp32"
    output: str | None = None


COLUMNS = (
    Column("row", "row", left=True),
    Column("input", "input"),
    Column("published_gmacs", "published GMACs", star="published_from"),
    Column("counted_gmacs", "counted GMACs", lambda value: f"{value:#.4g}".rstrip(".")),
    Column("difference", "difference", lambda value: f"{round(100 * value, 1) + 0:+.1f} %"),
    Column("agreement", "agreement", left=True),
    Column("parameters", "parameters (M)", lambda value: f"{value / 1e6:.1f}"),
    Column("published_top1", "top-1"),
    Column("published_speedup", "published speed-up", lambda value: f"{value}x"),
    Column("measured_speedup", "measured here", show_ratio),
    Column("note", "note", left=True),
)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    help_text = (__doc__ or "").replace("{keys}", ", ".join(table.key for table in load_tables()))
    positional, settings, strays = read_command_line(PaperTableSettings, argv or [], help_text)
    for text in (*positional, *strays):
        raise StvideoError(f"paper-tables takes settings of the form key=value only, not {text!r}")
    check_at_least(1, batch_size=settings.batch_size, rounds=settings.rounds)
    check_choice(PRECISIONS, precision=settings.precision)
    report = paper_tables(settings)
    print(report.text(), end="")
    if settings.output:
        print("written: " + ", ".join(map(str, report.write(settings.output, "paper-tables"))))
    return 0


def choose_tables(rows: str) -> list[PublishedTable]:
    """Return the tables that ``rows`` (keys with commas between them, or ``all``) names, in the order of the papers.

    Raises:
        StvideoError: there is none of that name.
    """
    tables = load_tables()
    known = [table.key for table in tables]
    wanted = [key.strip() for key in rows.strip("[]").split(",") if key.strip()] or ["all"]
    for key in wanted:
        if key not in known and key != "all":
            raise StvideoError(f"rows={key}: no such table{nearest(key, known)}; there are: all, {', '.join(known)}")
    return [table for table in tables if "all" in wanted or table.key in wanted]


def paper_tables(settings: PaperTableSettings) -> Report:
    """Count, and if asked measure, the rows of the tables that ``settings.rows`` names."""
    tables = choose_tables(settings.rows)
    sections = []
    for table in tables:
        rows = [count_row(row) for row in tqdm(table.rows, desc=table.key, unit="row", leave=False, disable=None)]
        if settings.measure:
            measure(table, rows, settings)
        sections.append(Section(table.key, f"{table.title} [{table.source}]", rows))
    tables_of = {note: [table.key for table in tables if note in table.notes] for t in tables for note in t.notes}
    notes = [
        "GMACs: multiply-accumulates of linear layers, convolutions and attention products, for one view of one clip "
        "or image; norms, softmax and activations are not counted. Half of what FLOP counters print",
        "agreement: 'as printed' equals the published figure at its printed precision; 'within 1 % of 3.45' is near "
        "the closest value that would print so; 'less, see note' lies below it for the reason given here",
        *(f"{', '.join(keys)}: {note}" for note, keys in tables_of.items()),
    ]
    return Report("Published and counted", COLUMNS, sections, notes)


def count_row(row: PublishedRow) -> dict[str, Any]:
    """Gather all that is known of a row without running it."""
    frames, height, width = row.size
    result: dict[str, Any] = {
        "row": row.label,
        "model": row.model,
        "arguments": row.arguments,
        "input": None if row.model is None else "x".join(map(str, row.size if frames > 1 else row.size[1:])),
        "published_gmacs": row.gmacs,
        "published_from": row.derived,
        "counted_gmacs": None,
        "difference": None,
        "agreement": None,
        "parameters": None,
        "published_parameters": row.parameters,
        "published_top1": row.top1,
        "published_speedup": row.speedup,
        "measured_speedup": None,
        "note": row.note,
    }
    if row.model is None:
        return result
    if row.model not in list_models():
        return result | {"agreement": NOT_HERE}
    with torch.device("meta"):
        model = create_model(row.model, **row.arguments)
    counted = count_macs(model, (1, 3, frames, height, width)).total
    result["counted_gmacs"] = counted
    result["parameters"] = sum(parameter.numel() for parameter in model.parameters())
    if row.gmacs is not None:
        result["difference"] = counted / float(row.gmacs) - 1
        result["agreement"] = judge(row, counted)
    return result


def measure(table: PublishedTable, results: list[dict[str, Any]], settings: PaperTableSettings) -> None:
    """Fill in ``measured_speedup`` of every row that names a dense one, timed beside it."""
    result_of = {result["row"]: result for result in results}
    row_of = {row.label: row for row in table.rows}
    device = choose_device(settings.device)
    pairs = [row for row in table.rows if row.dense in row_of and row.model in list_models()]
    for row in tqdm(pairs, desc=f"{table.key}, measuring", unit="row", leave=False, disable=None):
        calls = {}
        for one in (row_of[str(row.dense)], row):
            model = create_model(str(one.model), **one.arguments).eval().to(device)
            clip = random_clip((settings.batch_size, 3, *one.size), device)
            calls[one.label] = partial(forward_step(model, settings.precision), clip)
        timings = race(calls, rounds=settings.rounds)
        speedup = ratio(timings[str(row.dense)], timings[row.label])
        result_of[row.label]["measured_speedup"] = speedup and vars(speedup)


def judge(row: PublishedRow, counted: float) -> str:
    """Say in words how a count agrees with the published figure."""
    assert row.gmacs is not None
    digits = len(row.gmacs.partition(".")[2])
    published, rounding = float(row.gmacs), 0.5 * 10**-digits
    difference = counted / published - 1
    if f"{counted:.{digits}f}" == row.gmacs:
        return "as printed"
    if abs(difference) <= row.tolerance:
        return f"within {100 * row.tolerance:g} %"
    if row.may_be_less and -(row.tolerance + row.may_be_less) <= difference < 0:
        return "less, see note"
    edge = published + (rounding if difference > 0 else -rounding)
    if abs(counted / edge - 1) <= row.tolerance:
        return f"within {100 * row.tolerance:g} % of {edge:.{digits + 1}f}"
    return "DIFFERS"
