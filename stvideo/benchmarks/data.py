"""How fast clips are read here, by stvideo and by others, and whether a model has to wait for them.

    python -m stvideo.benchmark data                                      on clips generated for it
    python -m stvideo.benchmark data configs/k400_stvit.yaml data.root=/data/k400 data.train=train.csv
    python -m stvideo.benchmark data configs/ssv2_stvit.yaml videos=32 rounds=10 output=speed
    python -m stvideo.benchmark data configs/k400_stvit.yaml model=configs/k400_stvit.yaml workers=4,8

Reads training clips as the configuration says (without one: 8 frames at stride 32, 224 pixels). Two tables:

    by reader     stvideo with data.decoder (in brackets the decoders that in fact read the videos), decord and PyAV
                  used by hand, PyTorchVideo's LabeledVideoDataset with the same frames, scale and crop; in every round
                  each takes one clip of each video, in turns, in one process on one thread
    the loader    with several numbers of processes, alone and, with model=, while the model takes its batches

"stvideo is" says how many times faster stvideo reads than that row: the median over the rounds, with the lowest and
the highest round in brackets. "waiting" is the share of the time in which the model has no batch,
"limit" whichever of loader and model is slower by itself, or "cores" where both together are slower than either.
A loader that limits gets faster with more workers up to the number of cores, with videos from data_tools/resize.py
(smaller, with close key frames), with data.clips_per_video above 1, and with lighter augmentation. Settings:

    videos=8          how many videos of the configuration are read, spread over its list
    rounds=5          more rounds, narrower spread
    workers=0,1,2     loader processes
    others=true       measure decord and PyAV by hand and PyTorchVideo too
    model=null        MODEL|CONFIG|CHECKPOINT as for models side by side; clips have its size
    mode=train        what the model does with a batch: train (forward, backward and AdamW) | forward
    precision=fp32    fp32 | bf16: automatic mixed precision of the model
    device=auto       auto | cpu | cuda | cuda:N, of the model
    output=null       folder for data.txt, .csv, .md and .json (the JSON holds every round)

Files are read again and again, so they come from the system's memory: a slow disk is not measured.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from stvideo.benchmarks.candidates import parse_candidates
from stvideo.benchmarks.checks import check_at_least, check_choice, choose_device
from stvideo.benchmarks.entrants import MODES, PRECISIONS, Entrant, enter
from stvideo.benchmarks.generated_clips import generate_clip
from stvideo.benchmarks.machine import describe_machine, machine_line
from stvideo.benchmarks.readers import Clips, other_readers, own_reader
from stvideo.benchmarks.report import Column, Report, Section, show_ratio
from stvideo.benchmarks.steps import clock, random_clip
from stvideo.benchmarks.timing import Timing, race, ratio
from stvideo.core.errors import StvideoError
from stvideo.data.loading.batches import ClipPreparer
from stvideo.data.loading.datasets import build_dataset
from stvideo.data.loading.loader import build_loader
from stvideo.settings.cli import read_command_line
from stvideo.settings.config import load_config
from stvideo.settings.schema import DataConfig

LOADER_CLIPS, LOADER_PASSES = 32, 3  # at least so many clips, at most so many passes
CONTENTION = 0.9  # below that share of the slower one, loader and model are in each other's way


@dataclass
class DataSettings:
    """The settings of the command line, besides those of the configuration."""

    videos: int = 8
    rounds: int = 5
    workers: list[int] = field(default_factory=lambda: [0, 1, 2])
    others: bool = True
    model: str | None = None
    mode: str = "train"
    precision: str = "fp32"
    device: str = "auto"
    output: str | None = None

    def check(self) -> None:
        """Check the values; raises `StvideoError`."""
        check_at_least(1, videos=self.videos, rounds=self.rounds)
        for number in self.workers:
            check_at_least(0, workers=number)
        check_choice(PRECISIONS, precision=self.precision)
        check_choice(MODES, mode=self.mode)


COLUMNS = (
    Column("name", "", left=True),
    Column("failure", "", left=True),
    Column("seconds", "ms per clip", lambda value: f"{1000 * value:.1f}"),
    Column("clips_per_second", "clips/s", lambda value: f"{value:.1f}"),
    Column("ahead", "stvideo is", show_ratio),
    Column("together", "with the model", lambda value: f"{value:.1f}"),
    Column("waiting", "waiting", lambda value: f"{100 * value:.0f} %"),
    Column("limit", "limit", left=True),
)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    hint = "; keys of the configuration as data.KEY=VALUE"
    positional, settings, rest = read_command_line(DataSettings, argv or [], __doc__, hint)
    if len(positional) > 1:
        raise StvideoError(f"benchmark data takes one configuration file or none, got {' '.join(positional)}")
    settings.check()
    data = load_config(positional[0] if positional else None, rest).data
    device = choose_device(settings.device)
    entrant = build_entrant(settings, device) if settings.model else None
    if entrant is not None:
        data = replace(data, num_frames=entrant.clip_shape[1], img_size=entrant.clip_shape[2])
    machine = describe_machine(device)
    with tempfile.TemporaryDirectory(prefix="stvideo-benchmark-") as folder:
        clips = find_clips(data, settings.videos, Path(folder))
        readers, notes = race_readers(clips, settings)
        loader, more_notes = race_loader(clips, settings, entrant, device)
    notes += [
        *more_notes,
        f"{len(clips.paths)} videos, {data.num_frames} frames at {data.sampling} {data.stride}, {data.img_size} "
        f"pixels; median of {settings.rounds} rounds (lowest-highest)",
        machine_line(machine),
    ]
    sections = [
        Section("readers", "by reader, one process on one thread", readers),
        Section("loader", f"whole loader, batches of {clips.batch_size}", loader),
    ]
    report = Report("Reading clips", COLUMNS, sections, notes, machine)
    print(report.text(), end="")
    if settings.output:
        print("written: " + ", ".join(map(str, report.write(settings.output, "data"))))
    return 0


def build_entrant(settings: DataSettings, device: torch.device) -> Entrant:
    """Build the model that takes the batches.

    Raises:
        StvideoError: as `Candidate.build`, or its clips are not square.
    """
    (candidate,) = parse_candidates([str(settings.model)])
    model, training = candidate.build({}), settings.mode == "train"
    (entrant,) = enter(candidate, model, ["eager"], precision=settings.precision, device=device, training=training)
    if entrant.clip_shape[2] != entrant.clip_shape[3]:
        raise StvideoError(f"{candidate.label}: its clips are not square, as clips from video files are")
    return entrant


def find_clips(data: DataConfig, count: int, folder: Path) -> Clips:
    """Choose ``count`` training videos of the configuration, spread over its list; generate some where it has none."""
    if data.root:
        dataset = build_dataset(data, "train")
        chosen = np.unique(np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int))
        return Clips([dataset.path(int(number)) for number in chosen], data)
    paths = [folder / f"{number:04d}.mp4" for number in range(count)]
    for number, path in enumerate(tqdm(paths, desc="generating clips", unit="clip", leave=False, disable=None)):
        generate_clip(path, number)
    return Clips(paths, data)


def race_readers(clips: Clips, settings: DataSettings) -> tuple[list[dict[str, Any]], list[str]]:
    """Measure every reader that can read the videos; returns rows and notes."""
    readers = own_reader(clips) | (other_readers(clips) if settings.others else {})
    rows: list[dict[str, Any]] = [{"name": name, "failure": None} for name in readers]
    working: dict[str, Callable[[], Any]] = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a loader process
    try:
        for row, (name, run) in zip(rows, readers.items(), strict=True):
            try:
                run()
                working[name] = run
            except Exception as error:
                row["failure"] = f"fails: {' '.join(str(error).split())[:80]}"
        with tqdm(total=settings.rounds, desc="readers", unit="round", leave=False, disable=None) as bar:
            timings = race(working, rounds=settings.rounds, min_seconds=0.0, on_round=bar.update)
    finally:
        torch.set_num_threads(threads)
    ours = timings.get(rows[0]["name"], Timing())
    for row in rows:
        timing = timings.get(row["name"])
        if timing is not None and timing.median:
            ahead = ratio(timing, ours) if timing is not ours else None
            row["seconds"] = timing.median / len(clips.paths)
            row["clips_per_second"] = len(clips.paths) / timing.median
            row["ahead"] = ahead and vars(ahead)
            row["rounds"] = [seconds / len(clips.paths) for seconds in timing.rounds]
    hands = [timings[name].rounds for name in ("decord by hand", "PyAV by hand") if name in timings]
    best = ratio(Timing(rounds=[min(times) for times in zip(*hands, strict=True)]), ours)
    best_line = "stvideo reads {} as fast as the best of decord and PyAV by hand, round by round"
    return rows, [best_line.format(show_ratio(vars(best)))] if best else []


def race_loader(
    clips: Clips, settings: DataSettings, entrant: Entrant | None, device: torch.device
) -> tuple[list[dict[str, Any]], list[str]]:
    """Measure the loader with every number of processes, alone and with the model; returns rows and notes."""
    rows, notes = [], []
    if entrant is not None:
        step, prepare = entrant.step(), ClipPreparer(clips.data, device).clip
        clip = random_clip((clips.batch_size, *entrant.clip_shape), device)
        model = clips.batch_size / (race({0: partial(step, clip)}, rounds=settings.rounds)[0].median or 1)
        notes.append(f"{entrant.candidate.label} by itself takes {model:.1f} clips/s ({settings.mode}, {device})")
    for workers in settings.workers:
        rates, _ = loader_rates(clips, workers, settings.rounds)
        name = "in this process" if workers == 0 else f"{workers} loader process{'es' * (workers > 1)}"
        row = {"name": name, "workers": workers, "clips_per_second": median(rates), "rounds": rates}
        if entrant is not None:
            together, waiting = loader_rates(clips, workers, settings.rounds, lambda batch: step(prepare(batch)))
            row |= {"together": median(together), "waiting": waiting, "together_rounds": together}
            row["limit"] = limit_of(row, model)
        rows.append(row)
    return rows, notes


def loader_rates(
    clips: Clips, workers: int, rounds: int, consume: Callable[[Any], Any] = lambda batch: None
) -> tuple[list[float], float]:
    """Measure clips/s of whole passes of the loader, and the share of the time spent waiting for it.

    Args:
        clips: the videos.
        workers: loader processes.
        rounds: passes, at most three.
        consume: called with every batch.
    """
    batch = clips.batch_size
    ahead = max(1, 2 * workers)  # batches that were partly read before the clock starts
    timed = -(-max(LOADER_CLIPS, 2 * len(clips.paths)) // batch)
    loader = build_loader(clips.dataset((ahead + timed) * batch), batch, workers)
    rates, waiting = [], []
    for epoch in range(min(rounds, LOADER_PASSES)):
        loader.set_epoch(epoch)
        for number, loaded in enumerate(loader, 1):
            consume(loaded)
            if number == ahead:
                begin, waited = clock(), loader.wait_seconds
        seconds = clock() - begin
        rates.append(timed * batch / seconds)
        waiting.append((loader.wait_seconds - waited) / seconds)
    del loader.data_loader  # its processes end with it
    return rates, median(waiting)


def limit_of(row: dict[str, Any], model: float) -> str:
    """Say what limits loader and model together: the slower of the two, or the cores that they share.

    Args:
        row: ``clips_per_second`` of the loader alone, ``together``, and ``workers``.
        model: clips/s of the model alone.
    """
    loader = row["clips_per_second"]
    if row["workers"] and row["together"] < CONTENTION * min(loader, model):
        return "cores"
    if loader < model:
        return f"loader, {loader / model:.2f} of what the model takes"
    return f"model, the loader could feed {loader / model:.1f} of it"
