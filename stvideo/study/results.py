"""The results of a study: accuracies over seeds, paired differences, costs; one table and one plot of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stvideo.benchmarks.timing import race_models
from stvideo.core.files import write_atomically
from stvideo.drawing.curves import Curve, Point, plot_curves
from stvideo.evaluation.answers import check_comparable, read_answers
from stvideo.evaluation.paired import accuracy_interval, mean_interval, paired_difference
from stvideo.evaluation.report import as_table
from stvideo.reduction.equal_cost import control
from stvideo.study.plan import Study
from stvideo.study.runs import Run
from stvideo.weights.factory import load_model

ROUNDS = 7  # of taking turns


def compare_runs(study: Study, runs: Sequence[Run], device: torch.device) -> dict[str, Any]:
    """Compare the contestants of ``runs``, of which every one was evaluated; returns the content of study.json.

    Raises:
        StvideoError: they were not evaluated on the same videos.
    """
    answers = {run.folder: read_answers(run.folder) for run in runs}
    first, *others = answers.values()
    for other in others:
        check_comparable(first, other)
    contestants: dict[str, dict[str, Any]] = {}
    hits: dict[str, NDArray[np.bool_]] = {}
    for contestant in [c for c in study.contestants if any(run.contestant is c for run in runs)]:
        own = [answers[run.folder] for run in runs if run.contestant is contestant]
        right = hits[contestant.name] = np.stack([each.hits() for each in own])
        several = len(study.seeds) > 1
        low, high = mean_interval(100.0 * right) if several else accuracy_interval(int(right.sum()), right.size)
        contestants[contestant.name] = {
            "title": contestant.title,
            "from": contestant.parent,
            "settings": contestant.overrides,
            "is_control": list(own[0].settings["reduction"]) == [control()],
            "top1": 100.0 * float(right.mean()),
            "top1_of_seeds": (100.0 * right.mean(axis=1)).tolist(),
            "top1_low": low,
            "top1_high": high,
            "gmacs_per_view": own[0].settings["gmacs_per_view"],
            "parameters": own[0].settings["parameters"],
        }
    config = study.contestants[0].config
    batch_size, precision = config.evaluate.batch_size or config.data.batch_size, config.train.precision
    models = {name: load_model(study.folder_of(name, study.seeds[0])).to(device) for name in contestants}
    race = partial(race_models, models, batch_size=batch_size, rounds=ROUNDS, device=device, precision=precision)
    for key, training in (("clips_per_second", False), ("training_clips_per_second", True)):
        for name, timing in race(training=training).items():
            contestants[name][key] = batch_size / timing.median if timing.median else None
    return {
        "study": str(study.path),
        "seeds": study.seeds,
        **{key: first.settings[key] for key in ("views", "averaging", "evaluated", "expected", "official")},
        "batch_size": batch_size,
        "device": device.type,
        "precision": precision,
        "contestants": contestants,
        "compared": [
            {"a": a, "b": b, **asdict(paired_difference(hits[a], hits[b]))}
            for a, b in study.compare
            if a in hits and b in hits
        ],
    }


def write_results(output: Path, result: Mapping[str, Any]) -> tuple[str, list[Path]]:
    """Write study.json, study.md and study.png; returns the text of study.md and the files."""
    as_json, as_text, picture = (output / f"study.{ending}" for ending in ("json", "md", "png"))
    text = in_words(result)
    write_atomically(as_json, json.dumps(result, indent=2) + "\n")
    write_atomically(as_text, text + "\n\n![Accuracy against GMACs and against clips/s](study.png)\n")
    draw(picture, result)
    return text, [as_text, as_json, picture]


def in_words(result: Mapping[str, Any]) -> str:
    """Write the tables of study.md and what their numbers are."""
    contestants = result["contestants"]
    seeds = ", ".join(map(str, result["seeds"]))
    several = len(result["seeds"]) > 1
    head = ["model", "top-1 %", *([f"of seeds {seeds}"] if several else []), "GMACs per view"]
    rows = [[*head, "clips/s", "training clips/s"]]
    for each in contestants.values():
        of_seeds = [" ".join(f"{value:.1f}" for value in each["top1_of_seeds"])] if several else []
        speeds = (each["clips_per_second"], each["training_clips_per_second"])
        costs = [f"{each['gmacs_per_view']:.4g}", *(f"{speed:.3g}" if speed else "-" for speed in speeds)]
        rows.append([each["title"], f"{each['top1']:.1f}", *of_seeds, *costs])
    parts = [as_table(rows)]
    if result["compared"]:
        pairs = [["A - B", "points", "95 % interval"]]
        for pair in result["compared"]:
            names = " - ".join(contestants[pair[key]]["title"] for key in "ab")
            pairs.append([names, f"{pair['difference']:+.2f}", f"{pair['low']:+.2f} to {pair['high']:+.2f}"])
        parts.append(as_table(pairs))
    mean = f"Top-1 is the mean over the seeds {seeds}" if several else f"Seed {seeds}"
    parts.append(
        f"{mean}, {result['views']} views (clips x crops) of {result['evaluated']} videos. Intervals: bootstrap over "
        f"videos{' and seeds together' if several else ''}, paired. Speeds: medians over batches of "
        f"{result['batch_size']} clips ({result['device']}) that all models computed in turns, without reading videos."
    )
    return "\n\n".join(parts)


def draw(path: Path, result: Mapping[str, Any]) -> None:
    """Plot accuracy against GMACs and against speed, with the Pareto front."""
    curves = []
    for name, each in result["contestants"].items():
        costs, interval = (each["gmacs_per_view"], each["clips_per_second"]), (each["top1_low"], each["top1_high"])
        curves.append(Curve(each["title"], [Point(costs, each["top1"], name, interval)], each["is_control"]))
    speed = f"measured clips/s ({result['device']}, batches of {result['batch_size']})"
    title = f"{result['evaluated']} videos, {result['views']} views; bars: 95 % of each accuracy by itself"
    plot_curves(path, curves, ("GMACs per view", speed), title=title, front=(False, True))
