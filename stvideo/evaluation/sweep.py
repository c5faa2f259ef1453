"""Accuracy against cost: one checkpoint at several budgets, or several checkpoints, measured on the same videos.

Beside every reduced model stands the control: the same weights with tokens kept at random at equal cost. Models that
read videos alike are measured together, so that each video is decoded once for all of them and their speeds come
from the same batches in turns.
"""

from __future__ import annotations

import json
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from accelerate import Accelerator

from stvideo.core.errors import StvideoError
from stvideo.core.files import write_atomically
from stvideo.core.macs import count_macs
from stvideo.core.messages import logger
from stvideo.data.clips.preprocessing import Preprocessing
from stvideo.drawing.curves import Curve, Point, plot_curve_panels
from stvideo.evaluation.paired import accuracy_interval, paired_difference
from stvideo.evaluation.report import write_csv, write_predictions
from stvideo.evaluation.runner import Evaluation
from stvideo.evaluation.video_set import VideoSet
from stvideo.models.base import Backbone
from stvideo.reduction.apply import reduction_options, remove_reduction
from stvideo.reduction.equal_cost import control as control_method
from stvideo.reduction.equal_cost import control_of, twin_of
from stvideo.reduction.sweep import at_budget, parse_sweep
from stvideo.runtime.processes import start_accelerator
from stvideo.runtime.run_folder import prepare_output
from stvideo.settings.config import Config
from stvideo.weights.restore import Restored


@dataclass
class Entry:
    """One model to measure.

    Attributes:
        name: of its files, unique in the sweep.
        curve: which line of the plot it is a point of.
        label: what stands beside the point.
        run: the checkpoint that its weights are from.
        control: the entry that keeps random tokens at its cost, if there is one.
    """

    name: str
    curve: str
    label: str
    run: Restored
    model: Backbone
    gmacs: float = 0.0
    control: str | None = None
    is_control: bool = False


def sweep(runs: list[Restored], output: Path) -> list[dict[str, Any]]:
    """Measure every run at every budget of ``sweep=``, and write sweep.png, sweep.csv, sweep.json and predictions/.

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
    entries = [entry for run in runs for entry in list_entries(run, runs, accelerator)]
    groups: dict[Hashable, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(reading_of(entry.run.config), []).append(entry)
    sets = {key: VideoSet(members[0].run.config, accelerator) for key, members in groups.items()}
    check_measured_alike(runs, list(sets.values()))
    for key, members in groups.items():
        for entry in members:
            entry.run.check_classes(sets[key].classes)
            entry.gmacs = count_macs(entry.model, sets[key].clip_shape).total
    if accelerator.is_main_process:
        print(*(note for run in runs for note in run.notes), sep="\n", flush=True)
    outcomes: dict[str, Evaluation] = {}
    for key, members in groups.items():
        if accelerator.is_main_process:
            print(f"measuring {len(members)} models on {sets[key].dataset.expected} videos", flush=True)
        measured = sets[key].evaluate([entry.model for entry in members])
        outcomes |= {entry.name: outcome for entry, outcome in zip(members, measured, strict=True)}
    points: list[dict[str, Any]] = []
    if accelerator.is_main_process:
        points = [describe_point(entry, outcomes) for entry in entries]
        files = write_sweep(output, config, entries, points, outcomes, sets)
        print(table(points) + f"\nwritten: {', '.join(map(str, files))}", flush=True)
    accelerator.end_training()
    return points


def list_entries(run: Restored, runs: list[Restored], accelerator: Accelerator) -> list[Entry]:
    """The models of one run: itself, or itself at every budget, each followed by its control."""
    base = run.model.to(accelerator.device).eval()
    prefix = "" if len(runs) == 1 else f"{name_of(run, runs)}-"
    title = "" if len(runs) == 1 or not run.config.sweep else f"{name_of(run, runs)}: "
    found: list[Entry] = []
    if run.config.sweep:
        dense = twin_of(base)
        remove_reduction(dense)
        found.append(Entry(f"{prefix}dense", f"{title}dense, same weights", "", run, dense))
        for budget in parse_sweep(run.config.sweep):
            model = at_budget(base, budget)
            curve = f"{title}{in_words(run, model)} ({budget.option})"
            found.append(Entry(prefix + budget.name, curve, budget.text, run, model))
    else:
        name = name_of(run, runs)  # runs with the same reductions are joined by a line, others stand alone
        found.append(Entry(name, in_words(run, base) or name, name, run, base))
    entries: list[Entry] = []
    for entry in found:
        entries.append(entry)
        entry.is_control = list(reduction_options(entry.model)) == [control_method()]
        if entry.is_control or not run.config.evaluate.control:
            continue
        try:
            control = control_of(entry.model)
        except StvideoError as error:
            logger.warning(f"{entry.name}: without a random control: {error}")
            continue
        if control is not None:
            entry.control = f"random-{entry.name}"
            cost = "equal cost" if len(runs) == 1 else f"the cost of {entry.curve}"
            curve = f"random tokens at {cost}, same weights"
            entries.append(Entry(entry.control, curve, "", run, control, is_control=True))
        elif reduction_options(entry.model):
            logger.warning(f"{entry.name}: costs no less than the dense model, so it has no random control")
    return entries


def in_words(run: Restored, model: Backbone) -> str:
    """The reductions of ``model``, and whether its weights were never trained with them."""
    methods = reduction_options(model)
    trained_with = run.metadata.get("model", {}).get("reduction") or {}
    return " + ".join(methods) + ("" if set(methods) <= set(trained_with) else " without training")


def name_of(run: Restored, runs: list[Restored]) -> str:
    """A short name of a run that no other has: its folder's, or with as many folders before it as it takes."""
    parts = [Path(each.config.checkpoint or each.path).absolute().parts for each in runs]
    own = Path(run.config.checkpoint or run.path).absolute().parts
    length = next((n for n in range(1, len(own)) if sum(p[-n:] == own[-n:] for p in parts) == 1), len(own))
    return "-".join(part for part in own[-length:] if part != Path(part).anchor)


def reading_of(config: Config) -> Hashable:
    """Equal for configurations whose models are given the same clips."""
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


def describe_point(entry: Entry, outcomes: dict[str, Evaluation]) -> dict[str, Any]:
    """What sweep.json says of one model."""
    outcome = outcomes[entry.name]
    predictions = outcome.predictions
    assert predictions is not None
    hits = predictions.hits()
    low, high = accuracy_interval(int(hits.sum()), len(hits))
    point: dict[str, Any] = {
        "name": entry.name,
        "curve": entry.curve,
        "label": entry.label,
        "is_control": entry.is_control,
        "checkpoint": str(entry.run.path),
        "reduction": reduction_options(entry.model),
        "gmacs_per_view": entry.gmacs,
        "clips_per_second": outcome.clips_per_second,
        **predictions.metrics(),
        "top1_low": low,
        "top1_high": high,
        "evaluated": len(hits),
        "control": entry.control,
    }
    control = outcomes[entry.control].predictions if entry.control else None
    if control is not None:
        difference = paired_difference(hits, control.hits())
        point |= {
            "minus_control": difference.difference,
            "minus_control_low": difference.low,
            "minus_control_high": difference.high,
        }
    return point


def write_sweep(
    output: Path,
    config: Config,
    entries: list[Entry],
    points: list[dict[str, Any]],
    outcomes: dict[str, Evaluation],
    sets: dict[Hashable, VideoSet],
) -> list[Path]:
    """Write every file of a sweep; returns them."""
    videos = next(iter(sets.values()))
    outcome = outcomes[entries[0].name]
    facts = {
        "protocol": videos.protocol.name,
        "views": videos.protocol.views,
        "averaging": f"{config.evaluate.average}, per video",
        "expected": videos.dataset.listed,
        "official": videos.official,
        "unreadable": [str(videos.dataset.path(video)) for video in sorted(outcome.unreadable)],
        "batch_size": config.evaluate.batch_size or config.data.batch_size,
        "processes": videos.accelerator.num_processes,
        "device": str(videos.accelerator.device.type),
        "precision": config.train.precision,
    }
    as_json, as_csv, picture = output / "sweep.json", output / "sweep.csv", output / "sweep.png"
    try:
        with TemporaryDirectory(prefix=".predictions-", dir=output) as fresh:
            for entry in entries:
                predictions = outcomes[entry.name].predictions
                assert predictions is not None
                write_predictions(Path(fresh) / f"{entry.name}.csv", predictions, entry.run.classes, videos)
            # Those of an earlier sweep go first: whatever ends this process, none of them stands beside new ones.
            for name in earlier_points(as_json):
                (output / "predictions" / f"{name}.csv").unlink(missing_ok=True)
            write_atomically(as_json, json.dumps({**facts, "points": points}, indent=2) + "\n")
            for file in Path(fresh).iterdir():
                file.replace(output / "predictions" / file.name)
        columns = list(dict.fromkeys(key for point in points for key in point))
        cells = [[_cell(point.get(column)) for column in columns] for point in points]
        write_csv(as_csv, [columns, *cells])
        draw_sweep(picture, points, facts)
    except OSError as error:
        raise StvideoError(f"{output}: cannot be written: {error.strerror or error}") from None
    return [picture, as_csv, as_json, output / "predictions"]


def earlier_points(as_json: Path) -> list[str]:
    """The names in the sweep.json of an earlier sweep into the same folder, as far as they can be files of its."""
    try:
        points = json.loads(as_json.read_text(encoding="utf-8"))["points"]
        names = [str(point["name"]) for point in points]
    except (OSError, ValueError, KeyError, TypeError):  # there was none, or it is not ours
        return []
    return [name for name in names if Path(name).name == name]


def draw_sweep(path: Path, points: list[dict[str, Any]], facts: dict[str, Any]) -> None:
    """Accuracy against GMACs and against speed, side by side."""

    def curves(cost: str) -> list[Curve]:
        found: dict[str, Curve] = {}
        for point in points:
            curve = found.setdefault(point["curve"], Curve(point["curve"], [], control=point["is_control"]))
            interval = (point["top1_low"], point["top1_high"])
            curve.points.append(Point(point[cost], point["top1"], point["label"], interval))
        return list(found.values())

    views = f"{facts['protocol']}: {facts['views']}" if facts["protocol"] != facts["views"] else facts["views"]
    title = f"{points[0]['evaluated']} videos, {views} views; bars: 95 % of each accuracy by itself"
    panels = [
        ("GMACs per view", curves("gmacs_per_view")),
        (f"measured clips/s ({facts['device']}, batches of {facts['batch_size']})", curves("clips_per_second")),
    ]
    plot_curve_panels(path, panels, "top-1 (%)", title)


def table(points: list[dict[str, Any]]) -> str:
    """The points as lines of text."""
    width = max(len(point["name"]) for point in points)
    lines = [f"{'':<{width}}     GMACs   clips/s   top-1 %   top-5 %   against random tokens at equal cost"]
    for point in points:
        numbers = f"{point['gmacs_per_view']:>10.4g}{point['clips_per_second']:>10.1f}"
        numbers += f"{point['top1']:>10.2f}{point['top5']:>10.2f}"
        against = ""
        if "minus_control" in point:
            interval = f"[{point['minus_control_low']:+.2f}, {point['minus_control_high']:+.2f}]"
            against = f"   {point['minus_control']:+.2f} points, 95 % interval {interval}"
        lines.append(f"{point['name']:<{width}}{numbers}{against}")
    return "\n".join(lines)


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict) else "" if value is None else value
