"""The published tables beside what this package counts and, on request, measures.

    python -m stvideo.benchmark paper-tables                                  every row, counted (about a minute)
    python -m stvideo.benchmark paper-tables rows=deit,evit                   some tables
    python -m stvideo.benchmark paper-tables rows=evit measure=true           the clock as well
    python -m stvideo.benchmark paper-tables output=tables                    also as text, CSV, Markdown and JSON

Columns: the published GMACs, those counted here, their difference, whether that agrees, parameters, published top-1,
published speed-up and, with measure=true, the speed-up measured here over the dense model: both run in turns in one
process, and the figure is the median of the per-round ratios with the lowest and the highest round in brackets.

    rows=all            tables to show: {keys}
    measure=false       time the models as well; all tables take hours on a CPU, so choose rows
    rounds=5            rounds of the race
    batch_size=null     null: 8 images of up to 512 px, else 1
    device=auto         auto | cpu | cuda | cuda:N. The same code runs on CUDA, where it has not been tested yet
    precision=fp32      fp32 | bf16 (automatic mixed precision)
    threads=null        CPU threads; null leaves torch's choice
    output=null         folder for paper-tables.txt, .csv, .md and .json

Switches can also be written as options: --measure. Exit status: 0, or 2 for a mistake.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from tqdm import tqdm

from stvideo.benchmarks.machine import describe_machine, machine_line
from stvideo.benchmarks.published import PublishedRow, PublishedTable, load_tables
from stvideo.benchmarks.report import Column, Report, Section, show_ratio
from stvideo.benchmarks.steps import forward_step, random_clip
from stvideo.benchmarks.timing import race, ratio
from stvideo.core.errors import StvideoError, nearest
from stvideo.core.macs import count_macs
from stvideo.models.registry import list_models
from stvideo.settings.command_settings import check_at_least, check_precision, choose_device, read_command_line
from stvideo.weights.factory import create_model

NOT_HERE = "not in this version"


@dataclass
class PaperTableSettings:
    """The settings of the command line."""

    rows: str = "all"
    measure: bool = False
    rounds: int = 5
    batch_size: int | None = None
    device: str = "auto"
    precision: str = "fp32"
    threads: int | None = None
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
    positional, settings, _ = read_command_line(PaperTableSettings, argv or [], help_text)
    if positional:
        raise StvideoError(f"paper-tables takes settings of the form key=value only, not {positional[0]!r}")
    check_at_least(1, rounds=settings.rounds, batch_size=settings.batch_size, threads=settings.threads)
    check_precision(settings.precision)
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
    """Count, and if asked measure, the chosen rows."""
    tables = choose_tables(settings.rows)
    device = choose_device(settings.device)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    sections = []
    for table in tables:
        rows = []
        for row in tqdm(table.rows, desc=table.key, unit="row", leave=False, disable=None):
            rows.append(count_row(row))
            dense = next((other for other in table.rows if other.label == row.dense), None)
            if settings.measure and dense:
                rows[-1]["measured_speedup"] = measure_row(row, dense, settings, device)
        sections.append(Section(table.key, f"{table.title} [{table.source}]", rows))
    tables_of = {note: [table.key for table in tables if note in table.notes] for t in tables for note in t.notes}
    notes = [
        "GMACs: multiply-accumulates of linear layers, convolutions and attention products, for one view of one clip "
        "or image; norms, softmax and activations are not counted. Half of what FLOP counters print",
        "agreement: 'as printed' equals the published figure at its printed precision; 'within 1 % of 3.45' is near "
        "the closest value that would print so; 'less, see note' lies below it for the reason given here",
        *(f"{', '.join(keys)}: {note}" for note, keys in tables_of.items()),
    ]
    machine = describe_machine(device) if settings.measure else {}
    if settings.measure:
        batch = settings.batch_size or "8 images of up to 512 px, else 1"
        notes.append(
            f"measured here: speed-up over the dense row, median of {settings.rounds} interleaved rounds (lowest-"
            f"highest), forward pass, {settings.precision}, batch {batch}, random weights; {machine_line(machine)}"
        )
    return Report("Published and counted", COLUMNS, sections, notes, machine)


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


def measure_row(
    row: PublishedRow, dense: PublishedRow, settings: PaperTableSettings, device: torch.device
) -> dict[str, float] | None:
    """Measure the speed of a row's model over that of its dense row: median, low and high of the rounds.

    Returns:
        None if the row is only quoted, its model is not in this version, or memory ran out.
    """
    if row.model not in list_models() or dense.model not in list_models():
        return None
    large = any(each.size[0] > 1 or max(each.size) > 512 for each in (row, dense))
    batch = settings.batch_size or (1 if large else 8)
    calls = {}
    for each in (dense, row):
        model = create_model(str(each.model), **each.arguments).to(device)
        clip = random_clip((batch, 3, *each.size), device)
        calls[each.label] = partial(forward_step(model, settings.precision), clip)
    timings = race(calls, rounds=settings.rounds)
    found = ratio(timings[dense.label], timings[row.label])
    return found and vars(found)
