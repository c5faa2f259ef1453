"""From video files to logits: loader, transfer and model apart and together, and which of them is the limit.

loader          clips/s that the loader processes read, decode, scale and crop when nobody else wants anything
transfer        clips/s that reach the device and are normalised there
model           clips/s of the forward pass on a clip that is there already
together        clips/s of all three overlapped, as in evaluation
of the limit    together over the slowest of the three alone; on a CPU loader and model share the cores
waiting         share of the time in which the loader was waited for
"""

from __future__ import annotations

import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from stvideo.benchmarks.compare_settings import Settings
from stvideo.benchmarks.entrants import Entrant
from stvideo.benchmarks.generated_clips import generated_clips
from stvideo.benchmarks.machine import describe_machine, machine_line
from stvideo.benchmarks.report import Column, Report, Section, show_ratio
from stvideo.benchmarks.running import forward_call
from stvideo.benchmarks.timing import synchronize
from stvideo.core.errors import StvideoError
from stvideo.data.clips.reading import ClipReading
from stvideo.data.lists.index import VideoIndex
from stvideo.data.loading.batches import ClipPreparer
from stvideo.data.loading.datasets import VideoDataset, build_dataset
from stvideo.data.loading.loader import Loader, build_loader
from stvideo.data.video.decode import open_video
from stvideo.inference.inputs import collect_videos
from stvideo.settings.config import DataConfig, load_config

GENERATED = 8  # clips, where there are no videos
PREFETCH = 2  # batches that each loader process prepares ahead
PASS_SECONDS = 4.0  # of the model alone, about; a pass has as many batches as that takes
FEWEST_BATCHES, MOST_BATCHES = 4, 64
LARGER_THAN_NEEDED = 1.25  # videos that many times larger than what is read of them are worth resizing
CONTENTION = 0.9  # below that share of the slowest part alone, the parts are in each other's way

RATES = {"loader": "loader", "transfer": "transfer", "forward": "model", "together": "together"}
"""Keys of a row and what they are called."""


def _rate(value: dict[str, float]) -> str:
    return f"{value['median']:.1f} ({value['low']:.1f}-{value['high']:.1f})"


COLUMNS = (
    Column("model", "model", left=True),
    Column("form", "form", left=True),
    *(Column(key, f"{title} clips/s", _rate) for key, title in RATES.items()),
    Column("of_limit", "of the limit", lambda value: f"{100 * value:.0f} %"),
    Column("waiting", "waiting", lambda value: f"{100 * value:.0f} %"),
    Column("speedup", "speed-up", show_ratio),
    Column("limit", "limit", left=True),
)


@dataclass
class Videos:
    """What is read: the files, how clips are cut from them, and how many processes do it."""

    paths: list[Path]
    data: DataConfig
    workers: int
    short_side: int  # pixels of the first one

    def dataset(self, clips: int) -> VideoDataset:
        """The first view of ``clips`` videos, which come again and again."""
        paths = [str(path.absolute()) for path in islice(cycle(self.paths), clips)]
        index = VideoIndex.build(paths, [0] * clips, ["any"])
        return VideoDataset(index, Path("/"), ClipReading.from_config(self.data))


def race_from_files(entrants: list[Entrant], settings: Settings, device: torch.device, notes: list[str]) -> Report:
    """Every entrant at every batch size, fed from files."""
    sections, advice = [], []
    with tempfile.TemporaryDirectory(prefix="stvideo-benchmark-") as folder:
        videos_of = {id(entrant): find_videos(entrant, settings, Path(folder)) for entrant in entrants}
        with tqdm(
            total=len(settings.batch_sizes) * settings.number_of_rounds() * len(entrants),
            unit="pass",
            leave=False,
            disable=None,
        ) as bar:
            for batch in settings.batch_sizes:
                torch._dynamo.reset()
                rows: list[dict[str, Any]] = []
                for entrant in entrants:
                    bar.set_description(f"batch {batch}")
                    videos = videos_of[id(entrant)]
                    row = measure(entrant, videos, batch, settings.number_of_rounds(), device, bar.update)
                    row["form"] = entrant.form if len({e.form for e in entrants}) > 1 else None
                    row["speedup"] = _speedup(rows[0], row) if rows else None
                    rows.append(row)
                    change = what_to_change(row, videos, os.cpu_count() or 1)
                    advice.append(f"batch {batch}, {entrant.name}: {change}")
                sections.append(Section(f"end-to-end-batch-{batch}", f"batch {batch}, end to end from files", rows))
    first = videos_of[id(entrants[0])]
    machine = describe_machine(device)
    best = max((row for section in sections for row in section.rows), key=lambda row: row["together"]["median"])
    about = [
        *advice,
        f"the fastest together: {best['model']} at batch {best['batch']}, {best['together']['median']:.1f} clips/s",
        f"{len(first.paths)} {'video' if len(first.paths) == 1 else 'videos'} of {first.short_side} pixels "
        f"(shorter side); what is read again comes from the system's memory; loader processes: {first.workers}; "
        f"median of {settings.number_of_rounds()} passes (lowest-highest), {settings.precision}",
        *notes,
        machine_line(machine),
    ]
    return Report("End to end", COLUMNS, sections, about, machine)


def find_videos(entrant: Entrant, settings: Settings, folder: Path) -> Videos:
    """The videos that ``files`` names, else those of the configuration, else some drawn into ``folder``.

    Raises:
        StvideoError: there are none, the first cannot be opened, or the model takes clips that are not square.
    """
    _, frames, height, width = entrant.clip_shape
    if height != width:
        raise StvideoError(f"{entrant.target.label}: mode=end_to_end cuts square clips, not {height}x{width}")
    source = entrant.target.source
    is_config = source.endswith((".yaml", ".yml"))
    data = load_config(source, entrant.target.settings).data if is_config else DataConfig()
    workers = data.workers if is_config else max(1, (os.cpu_count() or 1) - 1)
    if settings.workers is not None:
        workers = settings.workers
    data = replace(data, num_frames=frames, img_size=height)
    if settings.files is not None:
        paths = collect_videos([settings.files], "benchmark")
    elif data.root:
        dataset = build_dataset(data, "val")
        paths = [dataset.path(number) for number in range(dataset.expected)]
    else:
        paths = generated_clips(folder, GENERATED)
    with open_video(paths[0], data.decoder, data.timeout) as video:
        return Videos(paths, data, workers, video.short_side)


def measure(
    entrant: Entrant,
    videos: Videos,
    batch: int,
    rounds: int,
    device: torch.device,
    on_pass: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """One row: the parts alone and together, in turns, ``rounds`` times."""
    prepare = ClipPreparer(videos.data, device, num_classes=entrant.num_classes).clip
    loaded = next(iter(build_loader(videos.dataset(batch), batch)))
    clip = prepare(loaded)
    forward = forward_call(entrant.run, clip, entrant.precision)
    seconds = _seconds(forward, 2, device)
    number = min(max(math.ceil(PASS_SECONDS / seconds), FEWEST_BATCHES), MOST_BATCHES)
    ahead = max(1, PREFETCH * videos.workers)
    rates: dict[str, list[float]] = {name: [] for name in RATES}
    waiting = []
    with _open_loader(videos, batch, ahead + number, device) as loader:
        for _ in range(rounds):
            rates["forward"].append(batch / _seconds(forward, max(2, number // 4), device))
            rates["transfer"].append(batch / _seconds(lambda: prepare(loaded), number, device))
            rates["loader"].append(batch * number / _time_of(loader, ahead, lambda _: None, device)[0])
            elapsed, waited = _time_of(loader, ahead, _Overlapped(entrant, prepare), device)
            rates["together"].append(batch * number / elapsed)
            waiting.append(waited / elapsed)
            on_pass()
    row: dict[str, Any] = {"model": entrant.target.short, "form": None, "batch": batch, "rounds": rates}
    row |= {
        name: {"median": statistics.median(values), "low": min(values), "high": max(values)}
        for name, values in rates.items()
    }
    slowest = min(("loader", "transfer", "forward"), key=lambda name: row[name]["median"])
    row["of_limit"] = row["together"]["median"] / row[slowest]["median"]
    row["waiting"] = statistics.median(waiting)
    shared = device.type == "cpu" and videos.workers > 0 and row["of_limit"] < CONTENTION
    row["limit"] = "cores" if shared else RATES[slowest]
    return row


class _Overlapped:
    """Queue a batch's transfer and forward pass, then fetch the scores of the batch before: the device has work while
    the next batch is waited for."""

    def __init__(self, entrant: Entrant, prepare: Callable[[Any], Tensor]) -> None:
        self.entrant, self.prepare = entrant, prepare
        self.before: Tensor | None = None

    def __call__(self, batch: Any) -> None:
        # The softmax also makes a copy: a recorded CUDA graph writes all its results to the same place.
        scores = forward_call(self.entrant.run, self.prepare(batch), self.entrant.precision)().float().softmax(dim=1)
        if self.before is not None:
            self.before.cpu()
        self.before = scores


def what_to_change(row: dict[str, Any], videos: Videos, cores: int) -> str:
    """Which part is the limit and what would move it, in one line."""
    loader, model = row["loader"]["median"], row["forward"]["median"]
    needed = math.ceil(max(videos.workers, 1) * model / loader)
    wanted = videos.data.test_short_side or videos.data.img_size
    resize = (
        f"resize the videos once with data_tools/resize.py (they have {videos.short_side} pixels, {wanted} are used)"
        if videos.short_side > LARGER_THAN_NEEDED * wanted
        else ""
    )
    if row["limit"] == "loader":
        steps = [
            f"workers={min(needed, cores)} instead of {videos.workers}" if videos.workers < min(needed, cores) else "",
            resize,
            "several clips of each opened video (data.clips_per_video) in training",
        ]
        return f"the loader is the limit, {loader / model:.2f} of what the model takes: {_listed(steps)}"
    if row["limit"] == "cores":
        free = max(cores - videos.workers, 1)
        threads = f"try threads={free}, which leaves the loader its own" if torch.get_num_threads() > free else ""
        steps = [resize, threads, f"a GPU or more than these {cores} cores", "a stronger reduction, optimize=true"]
        return f"loader and model share the cores, which are the limit: {_listed(steps)}"
    if row["limit"] == "transfer":
        return "the transfer is the limit: a larger batch, and a link to the device of its own"
    steps = ["optimize=true", "a stronger reduction", "another batch size", "precision=bf16 on a device made for it"]
    enough = f"the loader could feed {loader / model:.1f} of it, so more workers would not help"
    return f"the model is the limit ({enough}): {_listed(steps)}"


def _listed(steps: Sequence[str]) -> str:
    return "; ".join(step for step in steps if step)


def _time_of(loader: Loader, ahead: int, consume: Callable[[Any], None], device: torch.device) -> tuple[float, float]:
    """Seconds for the batches after the first ``ahead``, which were partly read before anybody looked, and the seconds
    in which there was none."""
    begin, waited = 0.0, 0.0
    for number, batch in enumerate(loader):
        consume(batch)
        if number == ahead - 1:
            synchronize(device)
            begin, waited = time.perf_counter(), loader.wait_seconds
    synchronize(device)
    return time.perf_counter() - begin, loader.wait_seconds - waited


def _seconds(run: Callable[[], Any], times: int, device: torch.device) -> float:
    """Seconds per call, after one that does not count."""
    run()
    synchronize(device)
    begin = time.perf_counter()
    for _ in range(times):
        run()
    synchronize(device)
    return (time.perf_counter() - begin) / times


@contextmanager
def _open_loader(videos: Videos, batch: int, batches: int, device: torch.device) -> Iterator[Loader]:
    loader = build_loader(videos.dataset(batch * batches), batch, videos.workers, prefetch=PREFETCH, device=device)
    try:
        yield loader
    finally:
        del loader.data_loader  # its processes end with it


def _speedup(first: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    """Together against together, pass by pass."""
    ratios = [b / a for a, b in zip(first["rounds"]["together"], other["rounds"]["together"], strict=True)]
    return {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}
