"""Accuracy against cost: one checkpoint at several budgets, or several checkpoints, measured on the same videos.

Beside every reduced model stands the control: the same weights with tokens kept at random at equal cost. Models that
read videos alike are measured together, so that each video is decoded once for all of them; their speeds are measured
in turns afterwards, on clips in memory.
"""

from __future__ import annotations

import json
from collections.abc import Hashable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from stvideo.benchmarks.timing import race_models
from stvideo.core.errors import StvideoError
from stvideo.core.files import write_atomically
from stvideo.core.macs import count_macs
from stvideo.core.messages import logger
from stvideo.data.clips.preprocessing import Preprocessing
from stvideo.drawing.curves import Curve, Point, plot_curves
from stvideo.evaluation.metrics import Predictions
from stvideo.evaluation.paired import accuracy_interval, paired_difference
from stvideo.evaluation.report import as_table, set_facts, write_predictions
from stvideo.evaluation.video_set import VideoSet
from stvideo.models.base import Backbone
from stvideo.reduction.apply import reduction_options, remove_reduction
from stvideo.reduction.equal_cost import control, control_of, twin_of
from stvideo.reduction.sweep import at_budget, parse_sweep
from stvideo.runtime.processes import start_accelerator
from stvideo.runtime.run_folder import prepare_output
from stvideo.settings.config import Config
from stvideo.weights.restore import Restored

SPEED_ROUNDS = 7  # of taking turns


@dataclass
class Variant:
    """One model of a sweep.

    Attributes:
        name: of its files, unique in the sweep.
        curve: the line of the plot that it is a point of.
        label: text beside the point.
        run: the checkpoint that its weights are from.
        control: name of the variant that keeps random tokens at its cost, if there is one.
        gmacs: billions of multiply-accumulates per view.
        clips_per_second: of this model alone, in batches of clips in memory; None where memory did not suffice.
    """

    name: str
    curve: str
    label: str
    run: Restored
    model: Backbone
    control: str | None = None
    is_control: bool = False
    gmacs: float = 0.0
    clips_per_second: float | None = None


def sweep(runs: list[Restored], output: Path) -> list[dict[str, Any]]:
    """Measure every run at every budget of ``sweep=``, and write sweep.png, sweep.json and predictions/.

    Returns:
        The points of sweep.json (on the first process; elsewhere an empty list).

    Raises:
        StvideoError: a budget that a model cannot have, runs measured on different videos, and as `evaluate`.
    """
    config = runs[0].config
    prepare_output(output / "predictions")
    accelerator = start_accelerator(
        precision=config.train.precision, timeout_minutes=config.train.process_timeout_minutes
    )
    variants = [variant for run in runs for variant in list_variants(run, runs, accelerator.device)]
    groups: dict[Hashable, list[Variant]] = {}
    for variant in variants:
        groups.setdefault(reading_of(variant.run.config), []).append(variant)
    sets = {key: VideoSet(members[0].run.config, accelerator) for key, members in groups.items()}
    check_measured_alike(runs, list(sets.values()))
    for key, members in groups.items():
        for variant in members:
            variant.run.check_classes(sets[key].classes)
            variant.gmacs = count_macs(variant.model, sets[key].clip_shape).total
    accelerator.print(*(note for run in runs for note in run.notes), sep="\n", flush=True)
    predictions: dict[str, Predictions] = {}
    facts: dict[str, Any] = {}
    for key, members in groups.items():
        accelerator.print(f"measuring {len(members)} models on {sets[key].dataset.expected} videos", flush=True)
        outcome = sets[key].evaluate([variant.model for variant in members])
        if outcome is None or not accelerator.is_main_process:
            continue
        predictions |= {v.name: p for v, p in zip(members, outcome.predictions, strict=True)}
        facts = facts or set_facts(sets[key], outcome)
    points: list[dict[str, Any]] = []
    if accelerator.is_main_process:
        facts |= measure_speeds(variants, config, accelerator)
        points = [describe_point(variant, predictions) for variant in variants]
        files = write_sweep(output, facts, variants, points, predictions, next(iter(sets.values())))
        print(table(points) + f"\nwritten: {', '.join(map(str, files))}", flush=True)
    accelerator.end_training()
    return points


def list_variants(run: Restored, runs: list[Restored], device: torch.device) -> list[Variant]:
    """List the models of one run: itself, or itself at every budget, each followed by its control."""
    base = run.model.to(device).eval()
    several, name = len(runs) > 1, name_of(run, runs)
    if not run.config.sweep:  # runs with the same reductions are joined by a line, others stand alone
        found = [Variant(name, in_words(run, base) or name, name, run, base)]
    else:
        prefix, title = (f"{name}-", f"{name}: ") if several else ("", "")
        dense = twin_of(base)
        remove_reduction(dense)
        found = [Variant(f"{prefix}dense", f"{title}dense, same weights", "", run, dense)]
        for budget in parse_sweep(run.config.sweep):
            model = at_budget(base, budget)
            curve = f"{title}{in_words(run, model)} ({budget.option})"
            found.append(Variant(prefix + budget.name, curve, budget.text, run, model))
    variants: list[Variant] = []
    for variant in found:
        variant.is_control = list(reduction_options(variant.model)) == [control()]
        variants.append(variant)
        if not run.config.evaluate.control or variant.is_control or not reduction_options(variant.model):
            continue
        try:
            twin = control_of(variant.model)
        except StvideoError as error:
            logger.warning("%s: without a random control: %s", variant.name, error)
            continue
        if twin is None:
            logger.warning("%s: costs no less than the dense model, so it has no random control", variant.name)
            continue
        variant.control = f"random-{variant.name}"
        cost = f"the cost of {variant.curve}" if several else "equal cost"
        curve = f"random tokens at {cost}, same weights"
        variants.append(Variant(variant.control, curve, "", run, twin, is_control=True))
    return variants


def in_words(run: Restored, model: Backbone) -> str:
    """Name the reductions of ``model``, and whether its weights were never trained with them."""
    methods = reduction_options(model)
    trained_with = run.model.metadata.get("model", {}).get("reduction") or {}
    return " + ".join(methods) + ("" if set(methods) <= set(trained_with) else " without training")


def name_of(run: Restored, runs: list[Restored]) -> str:
    """Name a run as no other is: by its folder, or by as many folders before it as it takes."""
    parts = [Path(each.config.checkpoint or each.path).absolute().parts for each in runs]
    own = Path(run.config.checkpoint or run.path).absolute().parts
    length = next((n for n in range(1, len(own)) if sum(p[-n:] == own[-n:] for p in parts) == 1), len(own))
    return "-".join(part for part in own[-length:] if part != Path(part).anchor)


def reading_of(config: Config) -> Hashable:
    """Give a key that is equal for configurations whose models are given the same clips."""
    data = config.data
    return (data.root, data.train, data.val, data.classes, data.decoder, Preprocessing.from_config(data))


def check_measured_alike(runs: list[Restored], sets: list[VideoSet]) -> None:
    """Refuse runs that would be measured on different videos or in different ways; raises `StvideoError`."""
    for key in ("views", "average"):
        values = {str(getattr(run.config.evaluate, key)) for run in runs}
        if len(values) > 1:
            raise StvideoError(
                f"the runs have different evaluate.{key} ({', '.join(sorted(values))}); give one for all"
            )
    if len({run.path.resolve() for run in runs}) < len(runs):
        raise StvideoError("a checkpoint is given twice")
    first = sets[0].dataset
    for other in (videos.dataset for videos in sets[1:]):
        if other.video_index.digest() != first.video_index.digest():
            raise StvideoError(
                f"the runs are measured on different videos or classes: {first.expected} and {other.expected} videos, "
                f"{len(first.classes)} and {len(other.classes)} classes; give data.root, data.val and data.classes"
            )


def measure_speeds(variants: list[Variant], config: Config, accelerator: Accelerator) -> dict[str, Any]:
    """Time all models in turns on this process's device; returns how it was done."""
    batch_size = config.evaluate.batch_size or config.data.batch_size
    timings = race_models(
        {variant.name: variant.model for variant in variants},
        batch_size=batch_size,
        rounds=SPEED_ROUNDS,
        device=accelerator.device,
        precision=config.train.precision,
    )
    for variant in variants:
        seconds = timings[variant.name].median
        variant.clips_per_second = batch_size / seconds if seconds else None
    return {"batch_size": batch_size, "device": accelerator.device.type}


def describe_point(variant: Variant, predictions: dict[str, Predictions]) -> dict[str, Any]:
    """Describe one model in sweep.json."""
    own = predictions[variant.name]
    hits = own.hits()
    low, high = accuracy_interval(int(hits.sum()), len(hits))
    point: dict[str, Any] = {
        "name": variant.name,
        "curve": variant.curve,
        "label": variant.label,
        "is_control": variant.is_control,
        "checkpoint": str(variant.run.path),
        "reduction": reduction_options(variant.model),
        "gmacs_per_view": variant.gmacs,
        "clips_per_second": variant.clips_per_second,
        **own.metrics(),
        "top1_low": low,
        "top1_high": high,
        "evaluated": len(hits),
        "control": variant.control,
    }
    if variant.control:
        against = paired_difference(hits, predictions[variant.control].hits())
        point |= {
            "minus_control": against.difference,
            "minus_control_low": against.low,
            "minus_control_high": against.high,
        }
    return point


def write_sweep(
    output: Path,
    facts: dict[str, Any],
    variants: list[Variant],
    points: list[dict[str, Any]],
    predictions: dict[str, Predictions],
    videos: VideoSet,
) -> list[Path]:
    """Write every file of a sweep; returns them."""
    picture, as_json, folder = output / "sweep.png", output / "sweep.json", output / "predictions"
    with suppress(OSError, ValueError, KeyError, TypeError):  # there was no sweep here, or it is not ours
        for point in json.loads(as_json.read_text(encoding="utf-8"))["points"]:
            (folder / f"{Path(point['name']).name}.csv").unlink(missing_ok=True)
    as_json.unlink(missing_ok=True)
    for variant in variants:
        write_predictions(folder / f"{variant.name}.csv", predictions[variant.name], variant.run.model.classes, videos)
    write_atomically(as_json, json.dumps({**facts, "points": points}, indent=2) + "\n")
    draw_sweep(picture, points, facts)
    return [picture, as_json, folder]


def draw_sweep(path: Path, points: list[dict[str, Any]], facts: dict[str, Any]) -> None:
    """Plot accuracy against GMACs and against speed, side by side."""
    curves: dict[str, Curve] = {}
    for point in points:
        curve = curves.setdefault(point["curve"], Curve(point["curve"], control=point["is_control"]))
        interval = (point["top1_low"], point["top1_high"])
        costs = (point["gmacs_per_view"], point["clips_per_second"])
        curve.points.append(Point(costs, point["top1"], point["label"], interval))
    views = f"{facts['protocol']}: {facts['views']}" if facts["protocol"] != facts["views"] else facts["views"]
    title = f"{points[0]['evaluated']} videos, {views} views; bars: 95 % of each accuracy by itself"
    plot_curves(path, list(curves.values()), ("GMACs per view", speed_axis(facts)), title=title)


def speed_axis(facts: dict[str, Any]) -> str:
    """Label the axis of measured speeds."""
    return f"measured clips/s ({facts['device']}, batches of {facts['batch_size']})"


def table(points: list[dict[str, Any]]) -> str:
    """Lay out the points for people."""
    rows = [["model", "GMACs", "clips/s", "top-1 %", "top-5 %", "against random tokens at equal cost"]]
    for point in points:
        speed = point["clips_per_second"]
        numbers = [f"{point['gmacs_per_view']:.4g}", f"{speed:.1f}" if speed else "-"]
        against = ""
        if point["control"]:
            interval = f"[{point['minus_control_low']:+.2f}, {point['minus_control_high']:+.2f}]"
            against = f"{point['minus_control']:+.2f} points, 95 % interval {interval}"
        rows.append([point["name"], *numbers, f"{point['top1']:.2f}", f"{point['top5']:.2f}", against])
    return as_table(rows)
