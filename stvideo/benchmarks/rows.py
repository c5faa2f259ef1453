"""The rows of a comparison: every entrant, and the matrix products of its shapes, timed in the same rounds."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from stvideo.benchmarks.entrants import Entrant
from stvideo.benchmarks.report import Column, show_ratio
from stvideo.benchmarks.steps import forward_step, peak_memory, random_clip, saved_activations
from stvideo.benchmarks.timing import Timing, race, ratio
from stvideo.benchmarks.yardstick import Shape, linear_shapes, product_calls
from stvideo.core.out_of_memory import is_out_of_memory

Row = dict[str, Any]
PRODUCT_SECONDS = 0.02  # of each product in a round; models take ten times as long


def _milliseconds(value: float) -> str:
    return f"{1000 * value:.1f}" if value >= 0.01 else f"{1000 * value:.3g}"


def _percent(value: float) -> str:
    return f"{100 * value:.{0 if value >= 0.1 else 1}f} %"


def _rounded(value: float) -> str:
    return f"{value:.0f}"


COLUMNS = (
    Column("model", "model", left=True),
    Column("form", "form", left=True),
    Column("failure", "", left=True),
    Column("gmacs", "GMACs", lambda value: f"{value:#.4g}".rstrip(".")),
    Column("parameters", "parameters (M)", lambda value: f"{value / 1e6:.1f}"),
    Column("seconds", "ms per call", _milliseconds),
    Column("clips_per_second", "clips/s", lambda value: f"{value:.2f}"),
    Column("speedup", "speed-up", show_ratio),
    Column("theory", "theory", lambda value: f"{value:.2f}x"),
    Column("of_theory", "of theory", _percent),
    Column("in_all", "over first row", show_ratio),
    Column("of_products", "of products", _percent),
    Column("peak_mib", "peak MiB", _rounded),
    Column("saved_mib", "saved MiB", _rounded),
    Column("p50", "p50 ms", _milliseconds),
    Column("p90", "p90 ms", _milliseconds),
    Column("p99", "p99 ms", _milliseconds),
)


def measure(
    entrants: Sequence[Entrant],
    batch: int,
    *,
    rounds: int,
    device: torch.device,
    on_round: Callable[[], Any] = lambda: None,
) -> list[Row]:
    """Measure one table.

    Args:
        entrants: the first one's candidate is what the others are compared with.
        batch: clips per call.
        rounds: of the race.
        device: where it runs.
        on_round: called after every round.
    """
    clips = {e.clip_shape: random_clip((batch, *e.clip_shape), device) for e in entrants}
    calls = [partial(entrant.step(), clips[entrant.clip_shape]) for entrant in entrants]
    shapes = [_shapes(entrant, clips[entrant.clip_shape]) for entrant in entrants]
    is_bf16 = any(e.precision == "bf16" or next(e.model.parameters()).dtype == torch.bfloat16 for e in entrants)
    products = product_calls({s for own in shapes for s in own}, device, is_bf16, training=entrants[0].training)
    raced: dict[Any, Callable[[], Any]] = {**dict(enumerate(calls)), **products}
    seconds = {key: PRODUCT_SECONDS if key in products else 10 * PRODUCT_SECONDS for key in raced}
    timings = race(raced, rounds=rounds, min_seconds=seconds, each_call=batch == 1, on_round=on_round)
    fastest: dict[Shape, Timing] = {}
    for shape, kernel in products:
        timing = timings[shape, kernel]
        if shape not in fastest or (timing.median or math.inf) < (fastest[shape].median or math.inf):
            fastest[shape] = timing
    rows = []
    for number, entrant in enumerate(entrants):
        base = base_of(entrant, entrants)
        row = describe(entrant, timings[number], batch)
        row["form"] = entrant.form if len({e.form for e in entrants}) > 1 else None
        if base is not None:
            speedup = ratio(timings[entrants.index(base)], timings[number])
            row["speedup"] = speedup and vars(speedup)
            row["theory"] = base.gmacs / entrant.gmacs
            row["of_theory"] = speedup and speedup.median / row["theory"]
        if row["form"] and number:
            in_all = ratio(timings[0], timings[number])
            row["in_all"] = in_all and vars(in_all)
        row |= against_products(entrant, batch, timings[number], shapes[number], fastest)
        if not row["failure"]:
            row |= memory_of(entrant, calls[number], clips[entrant.clip_shape])
        rows.append(row)
    return rows


def base_of(entrant: Entrant, entrants: Sequence[Entrant]) -> Entrant | None:
    """Find what an entrant's speed-up refers to: the first model in the same form, or else its eager form."""
    first = {e.form: e for e in entrants if e.candidate is entrants[0].candidate}
    if entrant.candidate is entrants[0].candidate:
        return None
    return first.get(entrant.form) or first.get("eager") or entrants[0]


def describe(entrant: Entrant, timing: Timing, batch: int) -> Row:
    """Gather what is known of an entrant by itself."""
    median = timing.median
    return {
        "model": entrant.candidate.name,
        "label": entrant.candidate.label,
        "form": None,
        "failure": timing.failure,
        "batch": batch,
        "gmacs": entrant.gmacs,
        "parameters": sum(parameter.numel() for parameter in entrant.model.parameters()),
        "seconds": median,
        "clips_per_second": batch / median if median else None,
        "speedup": None,
        "theory": None,
        "of_theory": None,
        "in_all": None,
        "peak_mib": None,
        "saved_mib": None,
        "p50": timing.percentile(0.5),
        "p90": timing.percentile(0.9),
        "p99": timing.percentile(0.99),
        "calls": len(timing.calls),
        "rounds": timing.rounds,
    }


def against_products(
    entrant: Entrant, batch: int, timing: Timing, shapes: Counter[Shape], products: dict[Shape, Timing]
) -> Row:
    """Compare an entrant's arithmetic per second with that of the bare products of its shapes, round by round."""
    if timing.failure or not shapes or any(products[shape].failure for shape in shapes):
        return {"of_products": None, "product_gmacs_per_second": None}
    passes = 3 if entrant.training else 1  # the backward pass has two products for each one
    work = passes * sum(count * m * k * n for (m, k, n), count in shapes.items()) / 1e9
    rates, shares = [], []
    for number, seconds in enumerate(timing.rounds):
        rates.append(work / sum(count * products[shape].rounds[number] for shape, count in shapes.items()))
        shares.append(passes * entrant.gmacs * batch / seconds / rates[-1])
    return {"of_products": statistics.median(shares), "product_gmacs_per_second": statistics.median(rates)}


def memory_of(entrant: Entrant, call: Callable[[], Any], clip: torch.Tensor) -> Row:
    """Measure the memory of a call beyond weights, gradients and optimiser state, and what backward keeps."""
    if "compiled" in entrant.form or entrant.form == "onnx":
        return {}  # a recorded graph keeps its memory between calls, and ONNX Runtime's is not torch's
    if not entrant.training:
        return {"peak_mib": peak_memory(call)}
    call = partial(entrant.step(update=False), clip)
    call()  # gradients are there from now on
    row = {"peak_mib": peak_memory(call), "saved_mib": saved_activations(call, entrant.model)}
    entrant.model.zero_grad(set_to_none=True)
    return row


def _shapes(entrant: Entrant, clip: torch.Tensor) -> Counter[Shape]:
    step = entrant.model if entrant.training else forward_step(entrant.model, entrant.precision)
    try:
        return linear_shapes(partial(step, clip))
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return Counter()
