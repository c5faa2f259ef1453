"""Readers to measure: stvideo, and decord, PyAV and PyTorchVideo as a user would write them by hand.

The others are the shortest program that their documentation suggests, with the same frames, scale and crop.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
import torchvision
from torch import Tensor

from stvideo.core.errors import StvideoError
from stvideo.data.clips.reading import ClipReading
from stvideo.data.clips.sampling import stride_indices
from stvideo.data.lists.index import VideoIndex
from stvideo.data.loading.datasets import Request, VideoDataset, train_transform
from stvideo.data.video.decode import open_video
from stvideo.data.video.decord import decord_problem
from stvideo.settings.schema import DataConfig

Read = Callable[[Path, np.random.Generator], Tensor]
"""A clip (3, T, H, W) of a video, placed and cut at random."""


@dataclass
class Clips:
    """Videos, and how training clips are cut from them."""

    paths: list[Path]
    data: DataConfig

    @property
    def batch_size(self) -> int:
        """Clips in a batch."""
        return min(self.data.batch_size, len(self.paths))

    def dataset(self, number: int) -> VideoDataset:
        """Make a dataset of one training clip of each of ``number`` videos, which come again and again."""
        paths = [str(path.absolute()) for path in islice(cycle(self.paths), number)]
        reading = ClipReading.from_config(self.data)
        index = VideoIndex.build(paths, [0] * number, ["any"])
        return VideoDataset(index, Path("/"), reading, transform=train_transform(self.data), max_unreadable=0.0)


def own_reader(clips: Clips) -> dict[str, Callable[[], Any]]:
    """Make passes of stvideo, under a name that tells in brackets which decoders read the videos."""
    used = set()
    for path in clips.paths:
        with open_video(path, clips.data.decoder) as video:
            used.add(video.decoder)
    dataset, epochs = clips.dataset(len(clips.paths)), count()

    def run() -> list[Any]:
        epoch = next(epochs)
        reads: list[Any] = [dataset[Request(epoch, number, 0, 1)] for number in range(len(dataset))]
        for _, reason in (problem for read in reads for problem in read.problems):
            raise StvideoError(reason)
        return [sample for read in reads for sample in read.samples]

    return {f"stvideo ({', '.join(sorted(used))})": run}


def other_readers(clips: Clips) -> dict[str, Callable[[], Any]]:
    """Make passes of decord and PyAV used by hand, and of PyTorchVideo's data set."""
    by_hand = {} if decord_problem() else {"decord by hand": by_decord}
    readers = {name: _other_pass(clips, by(clips.data)) for name, by in {**by_hand, "PyAV by hand": by_pyav}.items()}
    return {**readers, "PyTorchVideo": lambda: by_pytorchvideo(clips.data)(clips.paths)}


def _other_pass(clips: Clips, read: Read) -> Callable[[], Any]:
    epochs = count()

    def run() -> list[Tensor]:
        epoch = next(epochs)
        return [read(path, np.random.default_rng((epoch, number))) for number, path in enumerate(clips.paths)]

    return run


def by_decord(data: DataConfig) -> Read:
    """Read with ``VideoReader`` and ``get_batch``."""
    import decord

    transform = train_transform(data)

    def read(path: Path, generator: np.random.Generator) -> Tensor:
        reader = decord.VideoReader(str(path), num_threads=1)
        position = float(generator.random())
        indices = stride_indices(len(reader), reader.get_avg_fps(), data.num_frames, data.stride, position=position)
        batch = reader.get_batch(indices)
        frames = batch.asnumpy() if hasattr(batch, "asnumpy") else batch.numpy()  # importing pytorchvideo changes it
        return transform(torch.from_numpy(frames), generator)

    return read


def by_pyav(data: DataConfig) -> Read:
    """Seek to the first frame, decode in order up to the last, keep those that are wanted."""
    transform = train_transform(data)

    def read(path: Path, generator: np.random.Generator) -> Tensor:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            rate, time_base = float(stream.average_rate or 30), stream.time_base or Fraction(1, 1000)
            count = stream.frames or round(float((stream.duration or 0) * time_base) * rate)
            position = float(generator.random())
            indices = stride_indices(count, rate, data.num_frames, data.stride, position=position)
            container.seek(int(indices[0] / rate / time_base), stream=stream)
            wanted, found = set(indices.tolist()), {}
            for frame in container.decode(stream):
                number = round(float((frame.pts or 0) * time_base) * rate)
                if number in wanted:
                    found[number] = frame.to_ndarray(format="rgb24")
                if number >= indices[-1]:
                    break
        nearest = [min(found, key=lambda number: abs(number - index)) for index in indices]
        return transform(torch.from_numpy(np.stack([found[number] for number in nearest])), generator)

    return read


def by_pytorchvideo(data: DataConfig) -> Callable[[Sequence[Path]], list[Tensor]]:
    """Pass once over some videos with ``LabeledVideoDataset``: a random clip of each, scaled, cropped and mirrored."""
    # Its transforms import a module that newer torchvision versions have under another name.
    sys.modules.setdefault("torchvision.transforms.functional_tensor", torchvision.transforms._functional_tensor)
    try:
        from pytorchvideo.data import LabeledVideoDataset, make_clip_sampler
        from pytorchvideo.transforms import ApplyTransformToKey, RandomShortSideScale, UniformTemporalSubsample
    except ImportError as error:
        raise StvideoError(f"PyTorchVideo cannot be imported here ({error})") from None
    from torchvision.transforms import Compose, RandomCrop, RandomHorizontalFlip

    steps = [
        UniformTemporalSubsample(data.num_frames),
        RandomShortSideScale(min_size=data.short_side[0], max_size=data.short_side[1]),
        RandomCrop(data.img_size),
        RandomHorizontalFlip(),
    ]
    transform = ApplyTransformToKey("video", Compose(steps))

    def read_all(paths: Sequence[Path]) -> list[Tensor]:
        dataset: Any = LabeledVideoDataset(
            [(str(path), {"label": 0}) for path in paths],
            make_clip_sampler("random", Fraction(data.num_frames * data.stride, 30)),
            video_sampler=torch.utils.data.SequentialSampler,
            transform=transform,
            decode_audio=False,
        )
        return [sample["video"] for sample in dataset]

    return read_all
