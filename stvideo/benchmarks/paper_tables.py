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

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from tqdm import tqdm

from stvideo.benchmarks.machine import describe_machine, machine_line
from stvideo.benchmarks.published import PUBLISHED
from stvideo.benchmarks.report import Column, Report, Section, show_ratio
from stvideo.benchmarks.rows import Block, Row
from stvideo.benchmarks.running import forward_call, random_clip
from stvideo.benchmarks.timing import Ratio, race, ratio
from stvideo.core.errors import StvideoError, nearest
from stvideo.core.macs import count_macs
from stvideo.models.registry import list_models
from stvideo.settings.command_settings import (
    check_at_least,
    check_precision,
    choose_device,
    read_command_line,
)
from stvideo.weights.factory import create_model

NOT_HERE = "not in this version"
MODELS_AT_ONCE = 5  # reduced models in memory beside their dense one


@dataclass
class Settings:
    """What the command line can say."""

    rows: str = "all"
    measure: bool = False
    rounds: int = 5
    batch_size: int | None = None
    device: str = "auto"
    precision: str = "fp32"
    threads: int | None = None
    output: str | None = None


def _difference(value: float) -> str:
    return f"{round(100 * value, 1) + 0:+.1f} %"


COLUMNS = (
    Column("row", "row", left=True),
    Column("input", "input"),
    Column("published_gmacs", "published GMACs", star="published_from"),
    Column("counted_gmacs", "counted GMACs", lambda value: f"{value:#.4g}".rstrip(".")),
    Column("difference", "difference", _difference),
    Column("agreement", "agreement", left=True),
    Column("parameters", "parameters (M)", lambda value: f"{value / 1e6:.1f}"),
    Column("published_top1", "top-1"),
    Column("published_speedup", "published speed-up", lambda value: f"{value}x"),
    Column("measured_speedup", "measured here", show_ratio),
    Column("note", "note", left=True),
)


def main(argv: list[str] | None = None) -> int:
    """The command. Returns its exit status."""
    help_text = (__doc__ or "").replace("{keys}", ", ".join(block.key for block in PUBLISHED))
    positional, settings, strays = read_command_line(Settings, argv or [], help_text)
    if positional or strays:
        raise StvideoError(f"paper-tables takes settings of its own only, not {[*positional, *strays][0]!r}")
    check_at_least(1, rounds=settings.rounds, batch_size=settings.batch_size, threads=settings.threads)
    check_precision(settings.precision)
    report = paper_tables(settings)
    print(report.text(), end="")
    if settings.output:
        print("written: " + ", ".join(map(str, report.write(settings.output, "paper-tables"))))
    return 0


def choose_blocks(rows: str) -> list[Block]:
    """The tables that ``rows`` (keys with commas between them, or ``all``) names, in the order of the papers.

    Raises:
        StvideoError: there is none of that name.
    """
    known = [block.key for block in PUBLISHED]
    wanted = [key.strip() for key in rows.strip("[]").split(",") if key.strip()] or ["all"]
    for key in wanted:
        if key not in known and key != "all":
            raise StvideoError(f"rows={key}: no such table{nearest(key, known)}; there are: all, {', '.join(known)}")
    return [block for block in PUBLISHED if "all" in wanted or block.key in wanted]


def paper_tables(settings: Settings) -> Report:
    """Count, and if asked measure, the chosen rows."""
    blocks = choose_blocks(settings.rows)
    device = choose_device(settings.device)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    sections = []
    with tqdm(total=sum(len(b.rows) for b in blocks), unit="row", leave=False, disable=None) as bar:
        for block in blocks:
            rows = []
            for row in block.rows:
                rows.append(count_row(row))
                bar.update()
            if settings.measure:
                measure_block(block, rows, settings, device)
            sections.append(Section(block.key, f"{block.title} [{block.source}]", rows))
    notes = [
        "GMACs: multiply-accumulates of linear layers, convolutions and attention products, for one view of one clip "
        "or image; norms, softmax and activations are not counted. Half of what FLOP counters print",
        "agreement: 'as printed' equals the published figure at its printed precision; 'within 1 % of 3.45' is near "
        "the closest value that would print so; 'less, see note' lies below it for the reason given here",
        *block_notes(blocks),
    ]
    machine = describe_machine(device) if settings.measure else {}
    if settings.measure:
        batch = settings.batch_size or "8 images of up to 512 px, else 1"
        notes.append(
            f"measured here: speed-up over the dense row, median of {settings.rounds} interleaved rounds (lowest-"
            f"highest), forward pass, {settings.precision}, batch {batch}, random weights; {machine_line(machine)}"
        )
    return Report("Published and counted", COLUMNS, sections, notes, machine)


def block_notes(blocks: list[Block]) -> list[str]:
    """The tables' own notes, each once, with the tables that it is for in front."""
    keys: dict[str, list[str]] = {}
    for block in blocks:
        for note in block.notes:
            keys.setdefault(note, []).append(block.key)
    return [f"{', '.join(of)}: {note}" for note, of in keys.items()]


def build_row(row: Row) -> torch.nn.Module | None:
    """The model of ``row``; None where a figure is only quoted or its model is not in this version."""
    if row.model is None or row.model not in list_models():
        return None
    return create_model(row.model, **row.arguments)


def count_row(row: Row) -> dict[str, Any]:
    """Everything known of a row without running it."""
    with torch.device("meta"):
        model = build_row(row)
    frames, height, width = row.size
    result: dict[str, Any] = {
        "row": row.label,
        "model": row.model,
        "arguments": dict(row.arguments),
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
    if model is None:
        if row.model is not None:
            result["agreement"] = NOT_HERE
        return result
    counted = count_macs(model, (1, 3, frames, height, width)).total
    result["counted_gmacs"] = counted
    result["parameters"] = sum(p.numel() for p in model.parameters())
    if row.gmacs is not None:
        result["difference"] = counted / float(row.gmacs) - 1
        result["agreement"] = judge(row, counted)
    return result


def judge(row: Row, counted: float) -> str:
    """How a count stands to the published figure, in words."""
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


def measure_block(block: Block, results: list[dict[str, Any]], settings: Settings, device: torch.device) -> None:
    """Fill in ``measured_speedup`` for every row that names a dense one."""
    result_of = {result["row"]: result for result in results}
    for dense in block.rows:
        reduced = [row for row in block.rows if row.dense == dense.label and build_is_possible(row)]
        for start in range(0, len(reduced), MODELS_AT_ONCE):
            rows = [dense, *reduced[start : start + MODELS_AT_ONCE]]
            for row, speedup in zip(rows[1:], measure_rows(rows, settings, device), strict=True):
                result_of[row.label]["measured_speedup"] = speedup and vars(speedup)


def build_is_possible(row: Row) -> bool:
    """Whether this version has the model of ``row``."""
    return row.model is not None and row.model in list_models()


def measure_rows(rows: list[Row], settings: Settings, device: torch.device) -> list[Ratio | None]:
    """Speed of every row but the first over the first."""
    batch = settings.batch_size or batch_for(rows)
    calls = {}
    for row in rows:
        model = build_row(row)
        assert model is not None
        clip = random_clip((batch, 3, *row.size), device)
        calls[row.label] = forward_call(model.to(device), clip, settings.precision)
    first, *others = race(calls, rounds=settings.rounds).values()
    return [ratio(first, other) for other in others]


def batch_for(rows: Iterable[Row]) -> int:
    """8 images; 1 where an input is a clip or a large image."""
    return 1 if any(row.size[0] > 1 or max(row.size) > 512 for row in rows) else 8
