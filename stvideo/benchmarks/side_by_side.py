"""The tables of a comparison: every entrant, and the matrix products of its shapes, timed in the same rounds."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from stvideo.benchmarks.entrants import Entrant
from stvideo.benchmarks.memory import peak_memory, saved_activations
from stvideo.benchmarks.own_cost import own_cost
from stvideo.benchmarks.report import Column, show_ratio
from stvideo.benchmarks.running import backward_call, forward_call, random_clip, training_call
from stvideo.benchmarks.timing import Ratio, Timing, race, ratio
from stvideo.benchmarks.yardstick import Shape, linear_shapes, product_calls
from stvideo.core.out_of_memory import is_out_of_memory

Row = dict[str, Any]


def _milliseconds(value: float) -> str:
    return f"{1000 * value:.1f}" if value >= 0.01 else f"{1000 * value:.3g}"


def _percent(value: float) -> str:
    digits = 0 if value >= 0.1 else 1 if value >= 0.001 else 2
    return f"{100 * value:.{digits}f} %"


COLUMNS = (
    Column("model", "model", left=True),
    Column("form", "form", left=True),
    Column("failure", "", left=True),
    Column("owner", "belongs to", left=True),
    Column("part", "part", left=True),
    Column("gmacs", "GMACs", lambda value: f"{value:#.4g}".rstrip(".")),
    Column("parameters", "parameters (M)", lambda value: f"{value / 1e6:.1f}"),
    Column("seconds", "ms per call", _milliseconds),
    Column("share", "of forward", _percent),
    Column("clips_per_second", "clips/s", lambda value: f"{value:.2f}"),
    Column("speedup", "speed-up", show_ratio),
    Column("theory", "theory", lambda value: f"{value:.2f}x"),
    Column("of_theory", "of theory", _percent),
    Column("in_all", "over first row", show_ratio),
    Column("of_products", "of products", _percent),
    Column("peak_mib", "peak MiB", lambda value: f"{value:.0f}"),
    Column("saved_mib", "saved MiB", lambda value: f"{value:.0f}"),
    Column("p50", "p50 ms", _milliseconds),
    Column("p90", "p90 ms", _milliseconds),
    Column("p99", "p99 ms", _milliseconds),
)


def run_batch(
    entrants: Sequence[Entrant],
    batch: int,
    *,
    rounds: int,
    device: torch.device,
    training: bool,
    on_round: Callable[[], None] = lambda: None,
) -> list[Row]:
    """One table.

    Args:
        entrants: the first one's target is what the others are compared with.
        batch: clips per call.
        rounds: of the race.
        device: where it runs.
        training: time training steps instead of inference.
        on_round: called after every round.
    """
    clips = _clips(entrants, batch, device)
    contestants, shapes = [], []
    for entrant in entrants:
        clip = clips[entrant.clip_shape]
        if training:
            call = training_call(entrant.run, clip, entrant.num_classes, entrant.precision, entrant.model)  # type: ignore[arg-type]
        else:
            call = forward_call(entrant.run, clip, entrant.precision)
        contestants.append(call)
        shapes.append(_shapes(entrant, clip, training))
    different = list(dict.fromkeys(shape for counter in shapes for shape in counter))
    precision = "bf16" if any(_is_bf16(entrant) for entrant in entrants) else "fp32"
    calls = product_calls(different, device, precision, training)
    products = {(shape, n): call for shape, own in zip(different, calls, strict=True) for n, call in enumerate(own)}
    runs: dict[Any, Callable[[], Any]] = {**dict(enumerate(contestants)), **products}
    seconds = {key: 0.02 if key in products else 0.2 for key in runs}
    raced = race(runs, rounds=rounds, min_seconds=seconds, each_call=batch == 1, on_round=on_round)
    timings = [raced[n] for n in range(len(contestants))]
    of_shape = {
        shape: min((raced[shape, n] for n in range(len(own))), key=lambda t: t.median or float("inf"))
        for shape, own in zip(different, calls, strict=True)
    }
    timing_of = dict(zip(map(id, entrants), timings, strict=False))
    rows = []
    for entrant, contestant, counter in zip(entrants, contestants, shapes, strict=True):
        timing, base = timing_of[id(entrant)], base_of(entrant, entrants)
        row = describe(entrant, timing, batch, show_form=len({e.form for e in entrants}) > 1)
        if base is not None:
            row |= compare_with(base, ratio(timing_of[id(base)], timing), entrant)
        if row["form"] and entrant is not entrants[0]:
            row["in_all"] = _values(ratio(timings[0], timing))
        row |= against_products(entrant.gmacs * batch, timing, counter, of_shape, training)
        if timing.failure is None:
            row |= memory_of(contestant, entrant, clips[entrant.clip_shape], device, training)
        rows.append(row)
    return rows


def base_of(entrant: Entrant, entrants: Sequence[Entrant]) -> Entrant | None:
    """What an entrant's speed-up refers to: the first model in the same form, or its eager one where it lacks that."""
    first = {e.form: e for e in entrants if e.target is entrants[0].target}
    if entrant.target is entrants[0].target:
        return None
    return first.get(entrant.form) or first.get("eager") or entrants[0]


def describe(entrant: Entrant, timing: Timing, batch: int, show_form: bool) -> Row:
    """What is known of an entrant from its own times."""
    median = timing.median
    return {
        "model": entrant.target.short,
        "label": entrant.target.label,
        "form": entrant.form if show_form else None,
        "failure": timing.failure,
        "batch": batch,
        "gmacs": entrant.gmacs,
        "parameters": entrant.parameters,
        "seconds": median,
        "clips_per_second": batch / median if median else None,
        "speedup": None,
        "theory": None,
        "of_theory": None,
        "in_all": None,
        "p50": timing.percentile(0.5),
        "p90": timing.percentile(0.9),
        "p99": timing.percentile(0.99),
        "calls": len(timing.calls) or None,
        "rounds": timing.rounds,
    }


def compare_with(base: Entrant, speedup: Ratio | None, entrant: Entrant) -> Row:
    """How much faster an entrant is than ``base``, beside what their GMACs promise."""
    theory = base.gmacs / entrant.gmacs
    return {
        "speedup": _values(speedup),
        "theory": theory,
        "of_theory": speedup.median / theory if speedup else None,
    }


def against_products(
    gmacs: float, timing: Timing, counter: Counter[Shape], of_shape: dict[Shape, Timing], training: bool
) -> Row:
    """The rate of the products of a model's shapes, and the model's own rate as a share of it.

    Args:
        gmacs: of one forward pass of the whole batch; a training step has three times as many.
    """
    if timing.failure or not counter or any(of_shape[shape].failure for shape in counter):
        return {"of_products": None, "product_gmacs_per_second": None}
    passes = 3 if training else 1
    product_gmacs = passes * sum(count * m * k * n for (m, k, n), count in counter.items()) / 1e9
    rates = [
        product_gmacs / sum(count * of_shape[shape].rounds[i] for shape, count in counter.items())
        for i in range(len(timing.rounds))
    ]
    shares = [passes * gmacs / seconds / rate for seconds, rate in zip(timing.rounds, rates, strict=True)]
    return {"of_products": statistics.median(shares), "product_gmacs_per_second": statistics.median(rates)}


def memory_of(
    contestant: Callable[[], Any], entrant: Entrant, clip: Tensor, device: torch.device, training: bool
) -> Row:
    """Peak memory of one call beyond weights, gradients and optimiser state; in training what backward keeps, too."""
    if device.type == "cuda" and ("compiled" in entrant.form or entrant.form == "onnx"):
        # A recorded graph keeps its memory between calls, and ONNX Runtime's is not torch's.
        return {"peak_mib": None, "saved_mib": None}
    try:
        if not training:
            return {"peak_mib": peak_memory(contestant, device), "saved_mib": None}
        run = backward_call(entrant.run, clip, entrant.precision)  # type: ignore[arg-type]
        run()  # gradients are there from now on
        return {"peak_mib": peak_memory(run, device), "saved_mib": saved_activations(run, entrant.model)}
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return {"peak_mib": None, "saved_mib": None}
    finally:
        if training:
            entrant.model.zero_grad(set_to_none=True)


def cost_rows(
    entrants: Sequence[Entrant], batch: int, *, device: torch.device, passes: int, on_model: Callable[[], None]
) -> list[Row]:
    """Where the forward pass of every eager model with a reduction goes."""
    rows: list[Row] = []
    clips = _clips(entrants, batch, device)
    for entrant in entrants:
        if entrant.form != "eager":
            continue
        run = forward_call(entrant.run, clips[entrant.clip_shape], entrant.precision)
        costs = own_cost(entrant.model, run, device, passes)
        rows += [{"model": entrant.target.short, "batch": batch, **vars(cost)} for cost in costs]
        on_model()
    return rows


def call_counts(rows: Sequence[Row]) -> list[str]:
    """A note on how many calls the percentiles are of: of ten calls the last one is p99."""
    counts = [row["calls"] for row in rows if row["calls"]]
    if not counts:
        return []
    span = f"{min(counts)} to {max(counts)}" if min(counts) < max(counts) else f"{counts[0]}"
    return [f"p50, p90 and p99 are of {span} single calls of each model"]


def product_rates(rows: Sequence[Row]) -> list[str]:
    """A note on how fast this machine multiplied matrices."""
    rates = [row["product_gmacs_per_second"] for row in rows if row["product_gmacs_per_second"]]
    if not rates:
        return []
    low, high = min(rates), max(rates)
    return [
        f"matrix products of the models' own shapes ran at {2 * low:.0f} to {2 * high:.0f} GFLOP/s here "
        "(two FLOPs are one multiply-accumulate)"
    ]


def _clips(entrants: Sequence[Entrant], batch: int, device: torch.device) -> dict[tuple[int, ...], Tensor]:
    """One clip for each shape; models that take the same one share it."""
    return {shape: random_clip((batch, *shape), device) for shape in {entrant.clip_shape for entrant in entrants}}


def _shapes(entrant: Entrant, clip: Tensor, training: bool) -> Counter[Shape]:
    try:
        if not training:
            return linear_shapes(forward_call(entrant.model, clip, entrant.precision))
        return linear_shapes(lambda: entrant.model(clip))
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return Counter()


def _is_bf16(entrant: Entrant) -> bool:
    return entrant.precision == "bf16" or next(entrant.model.parameters()).dtype == torch.bfloat16


def _values(found: Ratio | None) -> dict[str, float] | None:
    return vars(found) if found else None
