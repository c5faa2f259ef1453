"""Read clips of the videos on disk: `VideoDataset`, and how a configuration becomes one.

A sample depends on (seed, epoch, video, view) only: not on the number of workers or processes, nor on what was read
before it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from stvideo.core.errors import StvideoError
from stvideo.core.messages import logger
from stvideo.data.clips.protocols import find_protocol
from stvideo.data.clips.reading import ClipReading
from stvideo.data.clips.transforms import TestTransform, TrainTransform, mirrored_classes
from stvideo.data.lists.annotations import build_index
from stvideo.data.lists.index import VideoIndex
from stvideo.data.lists.manifest import Checked, use_manifest
from stvideo.data.video.decode import UnreadableVideo, open_video
from stvideo.data.video.watchdog import MAX_WORKERS, ReadingNow
from stvideo.settings.schema import DataConfig

SUBSTITUTE_TRIES = 20


class Request(NamedTuple):
    """What the loader asks of the dataset: some views of one video."""

    epoch: int
    video: int
    first_view: int
    num_views: int


Sample = dict[str, Any]
Problem = tuple[int, str]
"""Number of a video that cannot be read, and why."""


class Read(NamedTuple):
    """What a request gave: samples, videos that could not be read on the way, and an error that ends everything."""

    samples: list[Sample]
    problems: list[Problem]
    error: StvideoError | None = None  # crossing processes as an exception would bury it in a traceback


class VideoDataset(Dataset[Any]):
    """Read clips of videos: a map-style dataset.

    Args:
        index: the videos.
        root: folder that their paths are relative to.
        reading: how clips are read.
        transform: for training; None makes the dataset give test views.
        views: clips x crops per video in testing, or a protocol's name.
        clips_per_video: clips drawn from each opened video in training.
        seed: everything random follows from it.
        max_unreadable: share of the videos that may be unreadable before training stops.
        skip_unreadable: in testing, leave unreadable videos out instead of ending there.
        checked: what a manifest says about the videos, see `stvideo.data.lists.manifest`.

    ``dataset[i]`` is sample i of epoch 0; ``dataset[epoch, i]`` of any epoch; the loader passes `Request` and gets
    `Read`. A sample: ``video`` uint8 (3, T, H, W), ``label`` and ``index`` (number of the video), ``view``,
    ``substituted``.
    """

    def __init__(
        self,
        index: VideoIndex,
        root: Path,
        reading: ClipReading,
        *,
        transform: TrainTransform | None = None,
        views: str = "1x1",
        clips_per_video: int = 1,
        seed: int = 0,
        max_unreadable: float = 0.05,
        skip_unreadable: bool = False,
        checked: Checked | None = None,
    ) -> None:
        self.checked = checked
        self.video_index, self.root, self.reading, self.seed = index, root, reading, seed
        self.transform, self.max_unreadable, self.skip_unreadable = transform, max_unreadable, skip_unreadable
        protocol = self.protocol = find_protocol(views)
        self.num_clips, self.num_crops = (clips_per_video, 1) if self.train else (protocol.clips, protocol.crops)
        flips = transform is not None and transform.flip
        self.mirrored = mirrored_classes(index.classes) if flips else np.arange(len(index.classes))
        size, share = reading.preprocessing.square_size, reading.preprocessing.test_share
        self.test_transform = TestTransform(size, self.num_crops, share)
        self.reading_now = ReadingNow()
        self.unreadable = torch.zeros(len(index), dtype=torch.uint8).share_memory_()

    @property
    def train(self) -> bool:
        return self.transform is not None

    @property
    def classes(self) -> list[str]:
        return self.video_index.classes

    @property
    def expected(self) -> int:
        """Number of videos."""
        return len(self.video_index)

    @property
    def listed(self) -> int:
        """Number of videos in the list, those included that the manifest leaves out."""
        return self.expected + (self.checked.left_out if self.checked is not None else 0)

    @property
    def official(self) -> int | None:
        """Videos in the official split, those missing here included; None if unknown."""
        return self.video_index.official

    @property
    def views_per_video(self) -> int:
        return self.num_clips * self.num_crops

    def __len__(self) -> int:
        return self.expected if self.train else self.expected * self.views_per_video

    def path(self, video: int) -> Path:
        """Return the path of video number ``video``."""
        return self.root / self.video_index.path(video)

    def __getitem__(self, key: int | tuple[int, int] | Request) -> Sample | Read:
        if isinstance(key, Request):
            try:
                return self._read(key)
            except UnreadableVideo as error:
                skip = self.skip_unreadable and not self.train
                return Read([], [(key.video, str(error))]) if skip else Read([], [], error)
            except StvideoError as error:
                return Read([], [], error)
        epoch, number = key if isinstance(key, tuple) else (0, key)
        if not -len(self) <= number < len(self):
            raise IndexError(f"sample {number} of {len(self)}")
        number %= len(self)
        video, view = (number, 0) if self.train else divmod(number, self.views_per_video)
        return self._read(Request(epoch, video, view, 1)).samples[0]

    def generator(self, epoch: int, video: int, view: int) -> np.random.Generator:
        """Make the source of everything random in one sample."""
        return np.random.default_rng((self.seed, epoch, video, view))

    def _read(self, request: Request) -> Read:
        """Read a request; training goes on with another video, chosen by (seed, epoch, video) alone."""
        worker = torch.utils.data.get_worker_info()
        slot = 0 if worker is None else (worker.id + 1) % MAX_WORKERS
        choose = np.random.default_rng((self.seed, request.epoch, request.video, 2**32 - 1))
        problems: list[Problem] = []
        video = request.video
        try:
            for _ in range(SUBSTITUTE_TRIES):
                if not self.unreadable[video]:
                    self.reading_now.begin(slot, video)
                    try:
                        return Read(self._read_views(request, video), problems)
                    except UnreadableVideo as error:
                        if not self.train:
                            raise
                        self.unreadable[video] = 1
                        problems.append((video, str(error)))
                video = int(choose.integers(len(self.video_index)))
        finally:
            self.reading_now.end(slot)
        raise StvideoError(
            f"{SUBSTITUTE_TRIES} videos in a row are unreadable; first {self.path(request.video)}"
            + (f" ({problems[-1][1]})" if problems else "")
        )

    def _read_views(self, request: Request, number: int) -> list[Sample]:
        """Read the views of one video, opened once: the one that was requested or its substitute."""
        reading, span = self.reading, self.video_index.span(number)
        samples: list[Sample] = []
        frames: torch.Tensor | None = None
        frames_clip, flipped = -1, False
        path, decoder, num_frames = self.path(number), reading.decoder, None
        if self.checked is not None:
            decoder, num_frames = self.checked.reading(number, path, decoder)
        with open_video(path, decoder, reading.timeout, num_frames) as video:
            for view in range(request.first_view, request.first_view + request.num_views):
                if self.transform is not None:
                    generator = self.generator(request.epoch, number, view)
                    indices = reading.indices(video, span, generator=generator)
                    frames = reading.frames(video, indices, max(self.transform.short_side))
                    clip, flipped = self.transform.draw(frames, generator)
                else:
                    clip_number, crop = divmod(view, self.num_crops)
                    if frames is None or clip_number != frames_clip:
                        indices = reading.indices(video, span, clip_number, self.protocol)
                        frames, frames_clip = reading.test_frames(video, indices), clip_number
                    clip = self.test_transform(frames, crop)
                label = int(self.video_index.labels[number])
                sample = {"video": clip, "label": int(self.mirrored[label]) if flipped else label, "index": number}
                samples.append({**sample, "view": view, "substituted": number != request.video})
        return samples


def build_dataset(
    config: DataConfig, split: str = "train", views: str = "1x1", seed: int = 0, skip_unreadable: bool = False
) -> VideoDataset:
    """Build the dataset that ``config`` describes.

    Args:
        config: where the videos are and how clips are read.
        split: ``"train"`` (random clips) or ``"val"`` (test views).
        views: clips x crops per video, or a protocol's name, for ``"val"``.
        seed: everything random in training samples follows from it.
        skip_unreadable: leave out the unreadable videos of ``"val"`` and tell which, instead of ending there.

    Raises:
        StvideoError: a file is missing or malformed, or a setting is wrong.
    """
    root = Path(config.root).expanduser()
    index, checked = use_manifest(build_index(config, split), root, config.manifest)
    reading = ClipReading.from_config(config)
    if split == "train":
        if not 0 <= config.max_unreadable <= 1:
            raise StvideoError(f"data.max_unreadable={config.max_unreadable}: a share lies in [0, 1]")
        if config.clips_per_video < 1:
            raise StvideoError(f"data.clips_per_video={config.clips_per_video}: expected at least 1")
    dataset = VideoDataset(
        index,
        root,
        reading,
        transform=train_transform(config) if split == "train" else None,
        views=views,
        clips_per_video=config.clips_per_video,
        seed=seed,
        max_unreadable=config.max_unreadable,
        skip_unreadable=skip_unreadable,
        checked=checked,
    )
    for note in index.notes:
        logger.warning(f"{split}: {note}")
    return dataset


def train_transform(config: DataConfig) -> TrainTransform:
    """Make the random crop, flip and colours that ``config`` describes; raises `StvideoError` for a wrong setting."""
    return TrainTransform(
        config.img_size,
        short_side=config.short_side,
        random_resized_crop=config.random_resized_crop,
        flip=config.flip,
        color_jitter=config.color_jitter,
        rand_augment=config.rand_augment,
        random_erasing=config.random_erasing,
        fill=[255 * mean for mean in config.mean],
    )
