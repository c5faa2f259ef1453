"""What each switch of training costs and saves here: time and memory of a step beside the default's.

    python -m stvideo.benchmark train configs/k400_evit.yaml
    python -m stvideo.benchmark train timesformer_base_patch16_224 data.batch_size=2 model.reduction.evit.keep_rate=0.5
    python -m stvideo.benchmark train configs/k400_stvit.yaml switches=checkpointing,bf16 rounds=10
    python -m stvideo.benchmark train configs/demo.yaml "+train.compile=true train.precision=bf16"
    python -m stvideo.benchmark train configs/demo.yaml switches= processes=1,2        only how processes scale
    torchrun --nproc_per_node 8 -m stvideo.benchmark train configs/k400_evit.yaml      the switches on eight GPUs

Every step is the training command's own, on made-up clips: normalisation and Mixup, forward, loss, backward, clipping,
update, moving average. The default is the configuration, or the model's name, with what SECTION.KEY=VALUE says, and
with none of the switches. Each switch takes turns with it in one process, and its speed is the median of the per-round
ratios, with the lowest and the highest round in brackets. A switch that cannot run here says why. The switches:

{switches}

and "+KEY=VALUE ..." for any settings of your own together. The columns:

    ms per step   one optimiser step, all its accumulated batches included
    speed         the default's time over this one's
    peak MiB      memory that a step adds at its peak: activations, gradients and what the update needs for a moment
    of default    that peak over the default's
    held MiB      what stays on the device between steps: weights, optimiser state, moving average

Settings:

    switches=NAME,NAME   which; default all, empty for none
    rounds=5             more rounds, narrower spread
    processes=1,2        also start the default step on so many processes (torchrun), one launch each
    threads=null         CPU threads; null leaves torch's choice
    output=null          folder for training.txt, .csv, .md and .json

The device is the one that training takes: a GPU where there is one (hide it with CUDA_VISIBLE_DEVICES=). Weights are
random, a teacher is left out. On a busy machine look at the spread before the median.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from tqdm import tqdm

from stvideo.benchmarks.launches import time_launches
from stvideo.benchmarks.machine import describe_machine, machine_line
from stvideo.benchmarks.memory import peak_memory
from stvideo.benchmarks.report import Column, Report, Section, show_ratio
from stvideo.benchmarks.timing import Contestant, race, ratio
from stvideo.benchmarks.training_step import Stepper
from stvideo.core.errors import StvideoError, nearest
from stvideo.core.memory import is_out_of_memory
from stvideo.models.registry import list_models
from stvideo.runtime.processes import has_device
from stvideo.settings import cli
from stvideo.settings.command_settings import accept_dashes, check_at_least, read_settings
from stvideo.settings.config import Config, load_config
from stvideo.training.checks import check_config
from stvideo.weights.factory import create_model

SWITCHES: dict[str, tuple[str, ...]] = {
    "checkpointing": ("model.grad_checkpointing=true",),
    "half_batches": (),  # depends on the batch, see `overrides_of`
    "bf16": ("train.precision=bf16",),
    "fp16": ("train.precision=fp16",),
    "compile": ("train.compile=true",),
    "plain_update": ("train.fused=false",),
    "plain_layout": ("train.channels_last=false",),
    "average": ("train.ema_decay=0.999",),
    "average_on_cpu": ("train.ema_decay=0.999", "train.ema_device=cpu"),
}
EXPLAINED = {
    "checkpointing": "activations are computed again in the backward pass",
    "half_batches": "data.batch_size halved, train.accumulation_steps doubled: the same training",
    "plain_update": "against the default's fused optimiser",
    "plain_layout": "against channels-last, where the default's convolutions run in it (STGM, STViT-Swin, LV-ViT)",
    "average_on_cpu": "the moving average off the GPU",
}
BASELINE = (
    "train.fused=true train.channels_last=true train.precision=fp32 train.compile=false train.ema_decay=null "
    "model.grad_checkpointing=false"
)


@dataclass
class Settings:
    """What the command line can say besides the configuration."""

    switches: list[str] = field(default_factory=lambda: list(SWITCHES))
    rounds: int = 5
    processes: list[int] = field(default_factory=list)
    threads: int | None = None
    output: str | None = None


COLUMNS = (
    Column("switch", "switch", left=True),
    Column("processes", "processes"),
    Column("clips", "clips per step"),
    Column("seconds", "ms per step", lambda value: f"{1000 * value:.1f}"),
    Column("speed", "speed", show_ratio),
    Column("clips_per_second", "clips/s", lambda value: f"{value:.2f}"),
    Column("of_first", "of the first", lambda value: f"{value:.2f}x"),
    Column("peak_mib", "peak MiB", lambda value: f"{value:.0f}"),
    Column("of_default", "of default", lambda value: f"{100 * value:.0f} %"),
    Column("held_mib", "held MiB", lambda value: f"{value:.0f}"),
    Column("failure", "cannot run here", left=True),
)


def main(argv: list[str] | None = None) -> int:
    """The command. Returns its exit status."""
    arguments = accept_dashes(argv or [], Settings)
    positional, overrides = cli.split_arguments(arguments, (__doc__ or "").replace("{switches}", switches_in_words()))
    own = [text for text in overrides if "." not in text.partition("=")[0]]
    settings = read_settings(
        Settings, own, "; a configuration's settings are SECTION.KEY=VALUE, e.g. data.batch_size=2"
    )
    check_at_least(1, rounds=settings.rounds, threads=settings.threads)
    for count in settings.processes:
        check_at_least(1, processes=count)
    for name in settings.switches:
        if name not in SWITCHES:
            raise StvideoError(
                f"switches={name}: no such switch{nearest(name, SWITCHES)}; there are: {', '.join(SWITCHES)}"
            )
    targets = [text for text in positional if not text.startswith("+")]
    extra = [text[1:].split() for text in positional if text.startswith("+")]
    changes = [text for text in overrides if text not in own]
    base = [*target_overrides(targets), *changes]
    path = targets[0] if is_file(targets[0]) else None
    if settings.processes and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise StvideoError("processes= starts launches of its own; leave it out under torchrun or accelerate launch")
    if settings.threads:
        torch.set_num_threads(settings.threads)
    report = compare_switches(path, base, settings, extra)
    if settings.processes:
        own_step = [text for text in arguments if not text.startswith("+")]
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # what this process keeps of the GPU is wanted by those that it starts
        report.sections.append(time_launches(own_step, settings.processes, settings.threads))
        report.notes.append("launches run one after the other, each with the default step; their speeds are medians")
    if os.environ.get("RANK", "0") == "0":
        print(report.text(), end="")
        if settings.output:
            print("written: " + ", ".join(map(str, report.write(settings.output, "training"))))
    return 0


def switches_in_words() -> str:
    """The switches for the help: name, settings, what they do."""
    lines = []
    for name, settings in SWITCHES.items():
        lines.append(f"    {name:<15} {'; '.join(filter(None, (' '.join(settings), EXPLAINED.get(name))))}")
    return "\n".join(lines)


def is_file(target: str) -> bool:
    return target.endswith((".yaml", ".yml"))


def target_overrides(targets: Sequence[str]) -> list[str]:
    """What stands for the one target: a configuration file's own settings, or a model's name.

    Raises:
        StvideoError: none, several, or a name that is no model's.
    """
    if len(targets) != 1:
        raise StvideoError(
            f"python -m stvideo.benchmark train takes one configuration file or model, got {len(targets)}; example: "
            "python -m stvideo.benchmark train configs/demo.yaml"
        )
    if is_file(targets[0]):
        return ["init=null", "train.teacher=null"]
    if targets[0] not in list_models():
        hint = nearest(targets[0], list_models())
        raise StvideoError(f"{targets[0]}: neither a model{hint} nor a configuration file; see stvideo.list_models()")
    with torch.device("meta"):
        _, _, frames, height, _ = create_model(targets[0]).example_shape()  # type: ignore[operator]
    return [f"model.name={targets[0]}", "data.batch_size=2", f"data.num_frames={frames}", f"data.img_size={height}"]


def compare_switches(path: str | None, base: list[str], settings: Settings, extra: list[list[str]]) -> Report:
    """Race every switch with the default, one after the other."""
    teacher = load_config(path).train.teacher if path else None
    plain = [text for text in BASELINE.split() if text.partition("=")[0] not in {t.partition("=")[0] for t in base}]
    default = configure(path, [*base, *plain])
    choices = [(name, overrides_of(name, default)) for name in settings.switches]
    choices += [(" ".join(settings_of_own), settings_of_own) for settings_of_own in extra]
    rows: list[dict[str, Any]] = []
    stepper = Stepper(default)
    main_process = stepper.accelerator.is_main_process
    bar = tqdm(choices, unit="switch", leave=False, disable=None if main_process else True)
    first = measure(stepper, None, settings.rounds) if not choices else None
    for name, changes in bar:
        bar.set_description(name)
        row, baseline = measure_switch(name, changes, stepper, path, [*base, *plain], settings.rounds)
        rows.append(row)
        first = first or baseline
    if first is None:  # no switch could run
        first = measure(stepper, None, settings.rounds)
    assert first is not None
    stepper.accelerator.end_training()  # all processes close their group together, or NCCL warns at exit
    machine = describe_machine(stepper.device)
    left_out = f"; the teacher {teacher} is left out" if teacher else ""
    notes = [
        f"speed over the default: median of {settings.rounds} interleaved rounds (lowest-highest){left_out}",
        f"{stepper.accelerator.num_processes} x {default.data.batch_size} clips (processes x batch) of "
        f"{default.data.num_frames} frames of {default.data.img_size} pixels, {default.train.optimizer}",
        machine_line(machine),
    ]
    section = Section("switches", f"{default.model.name}, one training step", [{"switch": "default", **first}, *rows])
    return Report("Training", COLUMNS, [section], notes, machine)


def configure(path: str | None, overrides: list[str]) -> Config:
    """A checked configuration."""
    config = load_config(path, overrides)
    check_config(config)
    return config


def overrides_of(name: str, default: Config) -> list[str] | None:
    """The settings of a switch; None where it does not apply to the default's batch."""
    if name != "half_batches":
        return list(SWITCHES[name])
    batch, steps = default.data.batch_size, default.train.accumulation_steps
    if batch % 2:
        return None
    return [f"data.batch_size={batch // 2}", f"train.accumulation_steps={2 * steps}"]


def measure_switch(
    name: str, changes: list[str] | None, default: Stepper, path: str | None, base: list[str], rounds: int
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The row of one switch, and the default's from the same rounds; None where the switch cannot run."""
    label = name if not changes or name == " ".join(changes) else f"{name} ({' '.join(changes)})"
    row: dict[str, Any] = {"switch": label, "settings": changes}
    if changes is None:
        return row | {"failure": f"data.batch_size={default.config.data.batch_size} cannot be halved"}, None
    if name == "average_on_cpu" and not has_device():
        return row | {"failure": "the model is on the CPU already"}, None
    try:
        stepper = Stepper(configure(path, [*base, *changes]))
        stepper()
        baseline = measure(default, stepper, rounds)
    except (StvideoError, RuntimeError) as error:
        reason = "out of memory" if is_out_of_memory(error) else str(error)
        return row | {"failure": " ".join(reason.split())[:160]}, None
    finally:
        default.activate()
    row |= baseline.pop("other")
    if row["peak_mib"] and baseline["peak_mib"]:
        row["of_default"] = row["peak_mib"] / baseline["peak_mib"]
    return row, baseline


def measure(default: Stepper, other: Stepper | None, rounds: int) -> dict[str, Any]:
    """Time the default, and in turns with it another stepper, whose row is under "other"."""
    steppers = [default] if other is None else [default, other]
    contestants = [Contestant(str(number), stepper, min_seconds=0.0) for number, stepper in enumerate(steppers)]
    timings = race(contestants, rounds=rounds, device=default.device)
    rows = []
    for stepper, timing in zip(steppers, timings, strict=True):
        if timing.failure:
            raise StvideoError(timing.failure)
        speed = ratio(timings[0], timing) if stepper is not default else None
        for each in steppers:
            each.forget_gradients()
        gc.collect()
        rows.append(
            {
                "seconds": timing.median,
                "speed": vars(speed) if speed else None,
                "clips": stepper.clips_per_step,
                "clips_per_second": stepper.clips_per_step / timing.median if timing.median else None,
                "peak_mib": peak_memory(stepper, stepper.device),
                "held_mib": stepper.held_mib(),
                "rounds": timing.rounds,
            }
        )
    return rows[0] if other is None else rows[0] | {"other": rows[1]}


if __name__ == "__main__":
    cli.run(main)
