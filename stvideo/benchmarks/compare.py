"""Models side by side on this machine: cost, speed, and how close both are to what is possible.

    python -m stvideo.benchmark timesformer_base_patch16_224 +evit.keep_rate=0.7 +stgm
    python -m stvideo.benchmark deit_small_patch16_224 evit_deit_small_patch16_224 stvit_deit_small_patch16_224
    python -m stvideo.benchmark configs/k400_stvit.yaml                (against the same model without its reduction)
    python -m stvideo.benchmark timesformer_base_patch16_224 "+evit.keep_rate=0.5 evit.scope=frame" mode=train

The first model is what the others are compared with; a single reduced model is compared with its dense one. Ways to
write a model:

{targets}

In every round each model runs once, in turns, in one process; a speed-up is the median of the per-round ratios, with
the lowest and the highest round in brackets. The columns:

    GMACs           multiply-accumulates of one clip, forward
    theory          what the GMACs promise: the first model's over this one's
    of theory       speed-up over theory
    of products     executed arithmetic per second, as a share of what torch's matrix product reaches here in the same
                    rounds on the shapes of this model's own linear layers, with nothing between them
    peak MiB        memory at the peak beyond weights and optimiser state: activations, in training gradients too
    saved MiB       training: activations that the backward pass keeps
    p50 p90 p99     batch 1: milliseconds within which that share of the single calls was done

Settings:

    batch_sizes=1,2,8    clips per call, one table each
    rounds=10            more rounds, narrower spread
    mode=forward         forward | train (forward, backward and AdamW)
    precision=fp32       fp32 | bf16 (automatic mixed precision)
    compile=false        torch.compile every model (the first calls take a minute)
    device=auto          auto | cpu | cuda | cuda:N
    threads=null         CPU threads; null leaves torch's choice
    num_frames=null      of the clips, for every model; null is each model's own. So are img_size and num_classes
    img_size=null
    num_classes=null
    output=null          folder for benchmark.txt, .csv, .md and .json (the JSON holds every round)

The same code runs on CUDA, with the device's queue waited for around every measurement; it has been tested on CPUs
only. Weights are random unless a checkpoint is given. On a busy machine look at the spread before the median.
"""

from __future__ import annotations

import statistics
import textwrap
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from stvideo import cli
from stvideo.benchmarks import targets as targets_module
from stvideo.benchmarks.machine import describe_machine, machine_line
from stvideo.benchmarks.memory import peak_memory, saved_activations
from stvideo.benchmarks.report import Column, Report, Section, show_ratio
from stvideo.benchmarks.running import forward_call, random_clip, training_call
from stvideo.benchmarks.settings import accept_dashes, check_at_least, check_precision, choose_device, read_settings
from stvideo.benchmarks.targets import Target, dense_counterpart, parse_targets
from stvideo.benchmarks.timing import Contestant, Timing, is_out_of_memory, race, ratio
from stvideo.benchmarks.yardstick import Shape, linear_shapes, product_call
from stvideo.errors import StvideoError, nearest
from stvideo.macs import count_macs

MODES = ("forward", "train")


@dataclass
class Settings:
    """What the command line can say."""

    batch_sizes: list[int] = field(default_factory=lambda: [1, 2, 8])
    rounds: int = 10
    mode: str = "forward"
    precision: str = "fp32"
    compile: bool = False
    device: str = "auto"
    threads: int | None = None
    num_frames: int | None = None
    img_size: int | None = None
    num_classes: int | None = None
    output: str | None = None


@dataclass
class Entrant:
    """A model in the race: on its device, with what does not depend on the batch."""

    target: Target
    model: nn.Module
    run_model: nn.Module  # the compiled one where asked for
    clip_shape: tuple[int, ...]  # (3, T, H, W)
    gmacs: float
    parameters: int


def _milliseconds(value: float) -> str:
    return f"{1000 * value:.1f}"


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


COLUMNS = (
    Column("model", "model", left=True),
    Column("failure", "", left=True),
    Column("gmacs", "GMACs", lambda value: f"{value:#.4g}".rstrip(".")),
    Column("parameters", "parameters (M)", lambda value: f"{value / 1e6:.1f}"),
    Column("seconds", "ms per call", _milliseconds),
    Column("clips_per_second", "clips/s", lambda value: f"{value:.2f}"),
    Column("speedup", "speed-up", show_ratio),
    Column("theory", "theory", lambda value: f"{value:.2f}x"),
    Column("of_theory", "of theory", _percent),
    Column("of_products", "of products", _percent),
    Column("peak_mib", "peak MiB", lambda value: f"{value:.0f}"),
    Column("saved_mib", "saved MiB", lambda value: f"{value:.0f}"),
    Column("p50", "p50 ms", _milliseconds),
    Column("p90", "p90 ms", _milliseconds),
    Column("p99", "p99 ms", _milliseconds),
)


def main(argv: list[str] | None = None) -> int:
    """The command. Returns its exit status."""
    written = (targets_module.__doc__ or "").split("\n\n", 1)[1].rstrip()
    help_text = (__doc__ or "").replace("{targets}", textwrap.indent(written, "    "))
    positional, overrides = cli.split_arguments(accept_dashes(argv or [], Settings), help_text)
    hint = '; what belongs to one model stands in its quotes, e.g. "deit_small_patch16_224 img_size=288"'
    settings = read_settings(Settings, overrides, hint)
    check_at_least(1, rounds=settings.rounds, threads=settings.threads, num_frames=settings.num_frames)
    for batch in settings.batch_sizes:
        check_at_least(1, batch_sizes=batch)
    check_precision(settings.precision)
    if settings.mode not in MODES:
        raise StvideoError(f"mode={settings.mode}: choose {' or '.join(MODES)}{nearest(settings.mode, MODES)}")
    report = compare(parse_targets(positional), settings)
    print(report.text(), end="")
    if settings.output:
        print("written: " + ", ".join(map(str, report.write(settings.output, "benchmark"))))
    return 0


def compare(targets: list[Target], settings: Settings) -> Report:
    """Race the targets at every batch size; the first one is what the others are compared with."""
    device = choose_device(settings.device)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    common = {key: getattr(settings, key) for key in ("num_frames", "img_size", "num_classes")}
    common = {key: value for key, value in common.items() if value is not None}
    entrants = [enter(target, common, settings, device) for target in targets]
    if len(entrants) == 1:
        dense = dense_counterpart(targets[0], entrants[0].model)
        if dense is not None:
            entrants.insert(0, enter(dense, common, settings, device))
    sections = [
        Section(f"batch-{batch}", f"batch {batch}, {settings.mode}", run_batch(entrants, batch, settings, device))
        for batch in tqdm(settings.batch_sizes, unit="batch size", leave=False, disable=None)
    ]
    machine = describe_machine(device)
    compiled = ", compiled" if settings.compile else ""
    notes = [
        f"speed-up over {entrants[0].target.label}: median of {settings.rounds} interleaved rounds (lowest-highest), "
        f"{settings.precision}{compiled}",
        *product_rates(sections),
        machine_line(machine),
    ]
    return Report("Side by side", COLUMNS, sections, notes, machine)


def enter(target: Target, common: dict[str, Any], settings: Settings, device: torch.device) -> Entrant:
    """Build a target for the race."""
    model = target.build(common).to(device)
    clip_shape = tuple(model.example_shape()[1:])  # type: ignore[operator]
    if settings.mode == "train" and (not model.num_classes or getattr(model, "features_only", False)):
        raise StvideoError(f"{target.label}: mode=train needs a model with a classification head")
    return Entrant(
        target,
        model,
        torch.compile(model, dynamic=False) if settings.compile else model,  # type: ignore[arg-type]
        clip_shape,
        count_macs(model, (1, *clip_shape)).total,
        sum(p.numel() for p in model.parameters()),
    )


def run_batch(entrants: list[Entrant], batch: int, settings: Settings, device: torch.device) -> list[dict[str, Any]]:
    """One table: every entrant, and the products of their shapes, in the same rounds."""
    training = settings.mode == "train"
    contestants = []
    shapes: list[Counter[Shape]] = []
    for entrant in entrants:
        clip = random_clip((batch, *entrant.clip_shape), device)
        if training:
            classes = int(entrant.model.num_classes)  # type: ignore[arg-type]
            call = training_call(entrant.run_model, clip, classes, settings.precision, entrant.model)
        else:
            call = forward_call(entrant.run_model, clip, settings.precision)
        contestants.append(Contestant(entrant.target.label, call))
        shapes.append(linear_shapes(entrant.model, (batch, *entrant.clip_shape)))
    different = list(dict.fromkeys(shape for counter in shapes for shape in counter))
    products = [
        Contestant(str(shape), product_call(shape, device, settings.precision, training), min_seconds=0.02)
        for shape in different
    ]
    timings = race(contestants + products, rounds=settings.rounds, device=device, each_call=batch == 1)
    of_shape = dict(zip(different, timings[len(contestants) :], strict=True))
    rows = []
    for entrant, contestant, timing, counter in zip(entrants, contestants, timings, shapes, strict=False):
        row = describe(entrant, timing, timings[0], entrants[0], batch)
        row |= against_products(entrant.gmacs * batch, timing, counter, of_shape, training)
        if timing.failure is None:
            row |= memory_of(contestant, entrant, device, training)
        rows.append(row)
    return rows


def describe(entrant: Entrant, timing: Timing, first: Timing, baseline: Entrant, batch: int) -> dict[str, Any]:
    """What is known of an entrant from its own times and those of the first one."""
    speedup = ratio(first, timing) if entrant is not baseline else None
    theory = baseline.gmacs / entrant.gmacs if entrant is not baseline else None
    median = timing.median
    return {
        "model": entrant.target.label,
        "failure": timing.failure,
        "batch": batch,
        "gmacs": entrant.gmacs,
        "parameters": entrant.parameters,
        "seconds": median,
        "clips_per_second": batch / median if median else None,
        "speedup": vars(speedup) if speedup else None,
        "theory": theory,
        "of_theory": speedup.median / theory if speedup and theory else None,
        "p50": timing.percentile(0.5),
        "p90": timing.percentile(0.9),
        "p99": timing.percentile(0.99),
        "rounds": timing.rounds,
    }


def against_products(
    gmacs: float, timing: Timing, counter: Counter[Shape], of_shape: dict[Shape, Timing], training: bool
) -> dict[str, Any]:
    """The rate of the products of a model's shapes, and the model's own rate as a share of it.

    Args:
        gmacs: of one forward pass of the whole batch; a training step has three times as many.
    """
    if timing.failure or any(of_shape[shape].failure for shape in counter):
        return {"of_products": None, "product_gmacs_per_second": None}
    passes = 3 if training else 1
    product_gmacs = passes * sum(count * m * k * n for (m, k, n), count in counter.items()) / 1e9
    rates = [
        product_gmacs / sum(count * of_shape[shape].rounds[i] for shape, count in counter.items())
        for i in range(len(timing.rounds))
    ]
    shares = [passes * gmacs / seconds / rate for seconds, rate in zip(timing.rounds, rates, strict=True)]
    return {"of_products": statistics.median(shares), "product_gmacs_per_second": statistics.median(rates)}


def memory_of(contestant: Contestant, entrant: Entrant, device: torch.device, training: bool) -> dict[str, Any]:
    """Peak memory of one call, and in training what the backward pass keeps."""
    try:
        return {
            "peak_mib": peak_memory(contestant.run, device),
            "saved_mib": saved_activations(contestant.run, entrant.model) if training else None,
        }
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return {"peak_mib": None, "saved_mib": None}


def product_rates(sections: list[Section]) -> list[str]:
    """A note on how fast this machine multiplied matrices."""
    rates = [row["product_gmacs_per_second"] for s in sections for row in s.rows if row["product_gmacs_per_second"]]
    if not rates:
        return []
    low, high = min(rates), max(rates)
    return [
        f"matrix products of the models' own shapes ran at {2 * low:.0f} to {2 * high:.0f} GFLOP/s here "
        "(two FLOPs are one multiply-accumulate)"
    ]


if __name__ == "__main__":
    cli.run(main)
