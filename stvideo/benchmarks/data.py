"""How fast clips can be read here, what the time goes into, and what would make it faster.

    python -m stvideo.benchmark data                                      on clips drawn and encoded for it
    python -m stvideo.benchmark data configs/k400_stvit.yaml data.root=/data/k400 data.train=train.csv
    python -m stvideo.benchmark data configs/ssv2_stvit.yaml videos=32 rounds=10 output=speed

Reads training clips as the configuration says (without one: 8 frames at stride 32, 224 pixels). In every round each
way of reading takes one clip of each video, in turns, in one process on one thread:

    by stage      opening, seeking and decoding, scaling and cropping, putting clips into a batch
    by reader     stvideo with each of its decoders (in brackets those that in fact read the videos), decord and PyAV
                  used by hand, PyTorchVideo's LabeledVideoDataset with the same frames, scale and crop
    the same from videos encoded anew as data_tools/resize.py does
    the loader    with several numbers of processes

"stvideo is" says how many times faster stvideo's own choice of decoder reads than that row: the median over the rounds,
with the lowest and the highest round in brackets. Settings:

    videos=8          how many videos of the configuration are read, spread over its list
    rounds=5          more rounds, narrower spread
    resize=true       measure on resized videos too; they are encoded into a temporary folder
    short_side=256    of the resized videos, in pixels
    keyframes=8       frames from one key frame to the next in them
    workers=0,1,2     loader processes
    others=true       measure decord and PyAV by hand and PyTorchVideo too
    output=null       folder for data.txt, .csv, .md and .json (the JSON holds every round)

Files are read again and again, so they come from the system's memory: a slow disk is not measured.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from stvideo.benchmarks.data_passes import Clips, Reader, loader_rates, other_readers, own_readers, stage_seconds
from stvideo.benchmarks.generated_clips import generated_clips
from stvideo.benchmarks.machine import describe_machine, machine_line
from stvideo.benchmarks.report import Column, Report, Section, show_ratio
from stvideo.benchmarks.timing import Timing, race, ratio
from stvideo.core.errors import StvideoError
from stvideo.data.loading.datasets import build_dataset
from stvideo.preparation.jobs import Failure
from stvideo.preparation.transcode import Job, Recipe, encoder_problem, transcode
from stvideo.settings import cli
from stvideo.settings.command_settings import check_at_least, read_command_line
from stvideo.settings.config import DataConfig, load_config

CPU = torch.device("cpu")
CRF = 22.0  # as in data_tools/resize.py


@dataclass
class Settings:
    """What the command line can say."""

    videos: int = 8
    rounds: int = 5
    resize: bool = True
    short_side: int = 256
    keyframes: int = 8
    workers: list[int] = field(default_factory=lambda: [0, 1, 2])
    others: bool = True
    output: str | None = None


def _milliseconds(value: float) -> str:
    return f"{1000 * value:.1f}"


COLUMNS = (
    Column("name", "", left=True),
    Column("failure", "", left=True),
    Column("seconds", "ms per clip", _milliseconds),
    Column("share", "share", lambda value: f"{100 * value:.0f} %"),
    Column("clips_per_second", "clips/s", lambda value: f"{value:.1f}"),
    Column("ahead", "stvideo is", show_ratio),
    Column("waiting", "waiting", lambda value: f"{100 * value:.0f} %"),
)


def main(argv: list[str] | None = None) -> int:
    """The command. Returns its exit status."""
    hint = "; keys of the configuration as data.KEY=VALUE"
    positional, settings, rest = read_command_line(Settings, argv or [], __doc__, hint)
    if len(positional) > 1:
        raise StvideoError(f"benchmark data takes one configuration file or none, got {' '.join(positional)}")
    check_at_least(1, videos=settings.videos, rounds=settings.rounds, keyframes=settings.keyframes)
    check_at_least(2, short_side=settings.short_side)
    for number in settings.workers:
        check_at_least(0, workers=number)
    data = load_config(positional[0] if positional else None, rest).data
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a loader process
    try:
        with tempfile.TemporaryDirectory(prefix="stvideo-benchmark-") as folder:
            report = measure(data, settings, Path(folder))
    finally:
        torch.set_num_threads(threads)
    print(report.text(), end="")
    if settings.output:
        print("written: " + ", ".join(map(str, report.write(settings.output, "data"))))
    return 0


def measure(data: DataConfig, settings: Settings, folder: Path) -> Report:
    """All tables; ``folder`` is for videos that are encoded on the way."""
    raw = find_clips(data, settings.videos, folder)
    sections, timings = read_all(raw, settings, "raw", "videos as they are")
    notes = [*_comparison(timings)]
    resized: Clips | None = None
    if settings.resize:
        resized = resize(raw, folder / "resized", settings)
        heading = f"resized to a shorter side of {settings.short_side}, a key frame every {settings.keyframes} frames"
        more, after = read_all(resized, settings, "resized", heading)
        sections += more
        gain = ratio(timings["stvideo"], after["stvideo"])
        if gain:
            sizes = sum(p.stat().st_size for p in resized.paths) / sum(p.stat().st_size for p in raw.paths)
            notes.append(
                f"resizing makes reading {show_ratio(vars(gain))} as fast; the files have {sizes:.0%} of the size"
            )
    loader = loader_rates(raw, settings.workers, settings.rounds)
    sections.append(Section("loader", f"whole loader, batches of {raw.batch_size}", loader))
    machine = describe_machine(CPU)
    stages = {row["name"]: row for row in sections[0].rows}
    notes += [
        advice(stages, loader, settings.resize),
        f"{len(raw.paths)} videos, {data.num_frames} frames at {data.sampling} {data.stride}, {data.img_size} pixels; "
        f"median of {settings.rounds} interleaved rounds (lowest-highest); one process, one thread, but for the loader",
        machine_line(machine),
    ]
    return Report("Reading clips", COLUMNS, sections, notes, machine)


def find_clips(data: DataConfig, count: int, folder: Path) -> Clips:
    """``count`` training videos of the configuration, spread over its list; clips drawn into ``folder`` without one."""
    if not data.root:
        return Clips(generated_clips(folder, count), data)
    dataset = build_dataset(data, "train")
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int))
    return Clips([dataset.path(int(number)) for number in chosen], data)


def read_all(clips: Clips, settings: Settings, key: str, heading: str) -> tuple[list[Section], dict[str, Timing]]:
    """The tables by stage and by reader, and the times of each reader."""
    readers: list[Reader] = own_readers(clips) + (other_readers(clips) if settings.others else [])
    failures = {reader.name: reader.failure() for reader in readers}
    alive = [reader for reader in readers if failures[reader.name] is None]
    with tqdm(total=2 * settings.rounds, desc=key, unit="round", leave=False, disable=None) as bar:
        stages = stage_seconds(clips, settings.rounds, bar.update)
        runs = {reader.key: reader.run for reader in alive}
        timings = race(runs, rounds=settings.rounds, min_seconds=0.0, on_round=bar.update)
    ours, count = timings["stvideo"], len(clips.paths)
    rows = []
    for reader in readers:
        timing = timings.get(reader.key)
        row: dict[str, Any] = {"name": reader.name, "failure": failures[reader.name]}
        if timing is not None and timing.median:
            ahead = ratio(timing, ours) if reader.key != "stvideo" else None
            row |= {
                "seconds": timing.median / count,
                "clips_per_second": count / timing.median,
                "ahead": vars(ahead) if ahead else None,
                "rounds": [seconds / count for seconds in timing.rounds],
            }
        rows.append(row)
    return [
        Section(f"{key}-stages", f"{heading}: by stage", stages),
        Section(f"{key}-readers", f"{heading}: by reader", rows),
    ], timings


def _comparison(timings: dict[str, Timing]) -> list[str]:
    """stvideo against the best of decord and PyAV by hand, round by round, and against PyTorchVideo."""
    notes = []
    hands = [timings[key].rounds for key in ("decord-by-hand", "pyav-by-hand") if key in timings]
    if hands:
        best = ratio(Timing(rounds=[min(times) for times in zip(*hands, strict=True)]), timings["stvideo"])
        if best:
            notes.append(f"stvideo reads {show_ratio(vars(best))} as fast as the best of decord and PyAV by hand")
    if "pytorchvideo" in timings:
        theirs = ratio(timings["pytorchvideo"], timings["stvideo"])
        if theirs:
            notes.append(f"stvideo reads {show_ratio(vars(theirs))} as fast as PyTorchVideo's LabeledVideoDataset")
    return notes


def resize(clips: Clips, folder: Path, settings: Settings) -> Clips:
    """The same videos as data_tools/resize.py writes them."""
    problem = encoder_problem()
    if problem:
        raise StvideoError(f"{problem}, or set resize=false")
    paths = []
    recipe = Recipe(settings.short_side, settings.keyframes, CRF)
    for number, path in enumerate(tqdm(clips.paths, desc="resizing", unit="video", leave=False, disable=None)):
        target = folder / f"{number:04d}.mp4"
        outcome = transcode(Job(str(path), str(target), recipe), lambda *_, **__: None)
        if isinstance(outcome, Failure):
            raise StvideoError(f"{path}: cannot be resized ({outcome.reason}); set resize=false")
        paths.append(target)
    return Clips(paths, clips.data)


def advice(stages: dict[str, Any], loader: list[dict[str, Any]], resized: bool) -> str:
    """What limits reading, and what would move it."""
    name, largest = max(((n, row) for n, row in stages.items() if n != "all"), key=lambda item: item[1]["share"])
    best = max(loader, key=lambda row: row["clips_per_second"])
    doing = {"open": "opening", "seek and decode": "decoding", "transform": "scaling and cropping"}.get(
        name, "batching"
    )
    head = f"the limit is {doing}, {largest['share']:.0%} of the time; one process reads "
    head += f"{stages['all']['clips_per_second']:.1f} clips/s, the best loader here {best['clips_per_second']:.1f} "
    head += f"({best['name']})"
    if name == "seek and decode":
        seen = " (see the tables of resized videos)" if resized else ""
        steps = f"videos with close key frames from data_tools/resize.py{seen}, data.clips_per_video above 1"
    elif name == "transform":
        steps = "lighter augmentation (data.rand_augment, data.color_jitter), a smaller data.short_side"
    elif name == "open":
        steps = "data.clips_per_video above 1, so that a video is opened once for several clips"
    else:
        steps = "smaller batches"
    return f"{head}. To change it: {steps}; data.workers up to the number of cores"


if __name__ == "__main__":
    cli.run(main)
