"""Ways of reading a training clip that stvideo is measured beside: decord and PyAV used by hand, and PyTorchVideo.

Each is the shortest program that its documentation suggests, on one thread, with the same frames, scale and crop.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
import torchvision
from torch import Tensor

from stvideo.core.errors import StvideoError
from stvideo.data.clips.sampling import stride_indices
from stvideo.data.clips.transforms import TrainTransform

Read = Callable[[Path, np.random.Generator], Tensor]
"""A clip (3, T, H, W) of a video, placed and cut at random."""


def by_decord(num_frames: int, stride: int, transform: TrainTransform) -> Read:
    """``VideoReader`` and ``get_batch``."""
    import decord

    def read(path: Path, generator: np.random.Generator) -> Tensor:
        reader = decord.VideoReader(str(path), num_threads=1)
        rate = float(reader.get_avg_fps())
        indices = stride_indices(len(reader), rate, num_frames, stride, position=float(generator.random()))
        batch = reader.get_batch(indices)
        frames = batch.asnumpy() if hasattr(batch, "asnumpy") else batch.numpy()  # importing pytorchvideo changes it
        return transform(torch.from_numpy(frames), generator)

    return read


def by_pyav(num_frames: int, stride: int, transform: TrainTransform) -> Read:
    """Seek to the first frame, decode in order up to the last, keep those that are wanted."""

    def read(path: Path, generator: np.random.Generator) -> Tensor:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            rate, time_base = float(stream.average_rate or 30), stream.time_base or Fraction(1, 1000)
            count = stream.frames or round(float((stream.duration or 0) * time_base) * rate)
            indices = stride_indices(count, rate, num_frames, stride, position=float(generator.random()))
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


def by_pytorchvideo(
    num_frames: int, stride: int, size: int, short_side: Sequence[int]
) -> Callable[[Sequence[Path]], list[Tensor]]:
    """One pass of ``LabeledVideoDataset`` over some videos: a random clip of each, scaled, cropped and mirrored."""
    _mend_pytorchvideo()
    try:
        from pytorchvideo.data import LabeledVideoDataset, make_clip_sampler
        from pytorchvideo.transforms import ApplyTransformToKey, RandomShortSideScale, UniformTemporalSubsample
    except ImportError as error:
        raise StvideoError(f"PyTorchVideo cannot be imported here ({error})") from None
    from torchvision.transforms import Compose, RandomCrop, RandomHorizontalFlip

    steps = [
        UniformTemporalSubsample(num_frames),
        RandomShortSideScale(min_size=short_side[0], max_size=short_side[1]),
        RandomCrop(size),
        RandomHorizontalFlip(),
    ]
    transform = ApplyTransformToKey("video", Compose(steps))
    seconds = Fraction(num_frames * stride, 30)

    def read_all(paths: Sequence[Path]) -> list[Tensor]:
        dataset: Any = LabeledVideoDataset(
            [(str(path), {"label": 0}) for path in paths],
            make_clip_sampler("random", seconds),
            video_sampler=torch.utils.data.SequentialSampler,
            transform=transform,
            decode_audio=False,
        )
        return [sample["video"] for sample in dataset]

    return read_all


def _mend_pytorchvideo() -> None:
    """Its transforms import a module that newer torchvision versions have under another name."""
    old = "torchvision.transforms.functional_tensor"
    if old not in sys.modules:
        module: types.ModuleType = torchvision.transforms._functional_tensor
        sys.modules[old] = module
