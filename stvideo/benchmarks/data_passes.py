"""What `stvideo.benchmark data` times: passes over some videos, one training clip of each."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from stvideo.benchmarks.readers import Read, by_decord, by_pyav, by_pytorchvideo
from stvideo.core.errors import StvideoError
from stvideo.data.clips.reading import ClipReading
from stvideo.data.lists.index import VideoIndex
from stvideo.data.loading.datasets import VideoDataset, train_transform
from stvideo.data.loading.loader import build_loader, collate
from stvideo.data.video.decode import decord_installed, open_video
from stvideo.data.video.torchcodec import torchcodec_problem
from stvideo.settings.config import DataConfig

STAGES = ("open", "seek and decode", "transform", "collate")
LOADER_CLIPS = 32  # at least, of a pass of the loader
LOADER_PASSES = 3  # at most


@dataclass
class Clips:
    """Videos, and how training clips are cut from them."""

    paths: list[Path]
    data: DataConfig

    @property
    def batch_size(self) -> int:
        return min(self.data.batch_size, len(self.paths))

    def dataset(self, count: int, decoder: str | None = None) -> VideoDataset:
        """One training clip of each of ``count`` videos, which come again and again."""
        paths = [str(path.absolute()) for path in islice(cycle(self.paths), count)]
        reading = ClipReading.from_config(self.data if decoder is None else replace(self.data, decoder=decoder))
        index = VideoIndex.build(paths, [0] * count, ["any"])
        return VideoDataset(index, Path("/"), reading, transform=train_transform(self.data), max_unreadable=0.0)


@dataclass
class Reader:
    """A way of reading: ``run`` takes the next clip of every video."""

    key: str
    name: str
    run: Callable[[], Any]

    def failure(self) -> str | None:
        """Why it cannot read these videos, in one line; None if it can."""
        try:
            self.run()
        except Exception as error:
            return f"fails: {' '.join(str(error).split())[:80]}"
        return None


def own_readers(clips: Clips) -> list[Reader]:
    """stvideo with its own choice of decoder, and with each that is installed."""
    readers = []
    for decoder in ("auto", "pyav", "decord", "torchcodec"):
        if (decoder == "decord" and not decord_installed()) or (decoder == "torchcodec" and torchcodec_problem()):
            continue
        used = sorted({_used(path, decoder) for path in clips.paths})
        name = "stvideo" if decoder == "auto" else f"stvideo, {decoder}"
        shown = "" if used == [decoder] else f" ({', '.join(used)})"
        readers.append(Reader(name.replace(", ", "-"), name + shown, _own_pass(clips, decoder)))
    return readers


def _used(path: Path, decoder: str) -> str:
    with open_video(path, decoder) as video:
        return video.decoder


def _own_pass(clips: Clips, decoder: str) -> Callable[[], Any]:
    dataset, rounds = clips.dataset(len(clips.paths), decoder), iter(range(10**9))

    def run() -> list[Any]:
        epoch = next(rounds)
        samples: list[Any] = [dataset[epoch, number] for number in range(len(dataset))]
        problems = [problem for sample in samples for problem in sample["problems"]]
        if problems:
            raise StvideoError(problems[0][1])
        return samples

    return run


def other_readers(clips: Clips) -> list[Reader]:
    """decord and PyAV used by hand, and PyTorchVideo's data set."""
    data, transform = clips.data, train_transform(clips.data)
    readers = []
    if decord_installed():
        read = by_decord(data.num_frames, data.stride, transform)
        readers.append(Reader("decord-by-hand", "decord by hand", _other_pass(clips, read)))
    read = by_pyav(data.num_frames, data.stride, transform)
    readers.append(Reader("pyav-by-hand", "PyAV by hand", _other_pass(clips, read)))

    def pytorchvideo() -> list[Tensor]:
        read_all = by_pytorchvideo(data.num_frames, data.stride, data.img_size, data.short_side)
        return read_all(clips.paths)

    readers.append(Reader("pytorchvideo", "PyTorchVideo", pytorchvideo))
    return readers


def _other_pass(clips: Clips, read: Read) -> Callable[[], Any]:
    rounds = iter(range(10**9))

    def run() -> list[Tensor]:
        epoch = next(rounds)
        return [read(path, np.random.default_rng((epoch, number))) for number, path in enumerate(clips.paths)]

    return run


def stage_seconds(clips: Clips, rounds: int, on_round: Callable[[], Any]) -> list[dict[str, Any]]:
    """Rows of the table by stage: seconds per clip, median over the rounds."""
    dataset, data = clips.dataset(len(clips.paths)), clips.data
    assert dataset.transform is not None
    spent: dict[str, list[float]] = {stage: [] for stage in STAGES}
    for epoch in range(-1, rounds):  # the first does not count
        seconds = dict.fromkeys(STAGES, 0.0)
        samples = []
        for number, path in enumerate(clips.paths):
            generator = dataset.generator(max(epoch, 0), number, 0)
            marks = [time.perf_counter()]
            with open_video(path, data.decoder, data.timeout) as video:
                marks.append(time.perf_counter())
                indices = dataset.reading.indices(video, (None, None), 0, 1, generator)
                frames = dataset.reading.frames(video, indices, max(dataset.transform.short_side))
                marks.append(time.perf_counter())
            clip = dataset.transform(frames, generator)
            marks.append(time.perf_counter())
            for stage, begin, end in zip(STAGES, marks, marks[1:], strict=False):
                seconds[stage] += end - begin
            samples.append({"video": clip, "label": 0, "index": number, "view": 0, "substituted": False})
        begin = time.perf_counter()
        for first in range(0, len(samples), clips.batch_size):
            collate([samples[first : first + clips.batch_size]])
        seconds["collate"] = time.perf_counter() - begin
        if epoch >= 0:
            for stage in STAGES:
                spent[stage].append(seconds[stage] / len(samples))
            on_round()
    total = [sum(values) for values in zip(*spent.values(), strict=True)]
    whole = statistics.median(total)
    rows = [
        {
            "name": name,
            "seconds": statistics.median(values),
            "share": statistics.median(values) / whole,
            "rounds": values,
        }
        for name, values in spent.items()
    ]
    return [*rows, {"name": "all", "seconds": whole, "clips_per_second": 1 / whole, "rounds": total}]


def loader_rates(clips: Clips, workers: Sequence[int], rounds: int) -> list[dict[str, Any]]:
    """Rows of the table of the loader: clips/s of whole passes when nobody else wants anything."""
    batch = clips.batch_size
    rows = []
    for number in workers:
        ahead = max(1, 2 * number)  # batches that were partly read before the clock starts
        count = (ahead + -(-max(LOADER_CLIPS, 2 * len(clips.paths)) // batch)) * batch
        loader = build_loader(clips.dataset(count), batch, number)
        rates = []
        for epoch in range(min(rounds, LOADER_PASSES)):
            loader.set_epoch(epoch)
            begin = time.perf_counter()
            for taken, _ in enumerate(loader, 1):
                if taken == ahead:
                    begin = time.perf_counter()
            rates.append((count - ahead * batch) / (time.perf_counter() - begin))
        del loader.data_loader  # its processes end with it
        name = "in this process" if number == 0 else f"{number} loader process{'es' * (number > 1)}"
        rows.append({"name": name, "workers": number, "clips_per_second": statistics.median(rates), "rounds": rates})
    return rows
