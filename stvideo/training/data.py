"""The videos of a run, and how they are divided into optimiser steps."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from accelerate import Accelerator
from torch import Tensor

from stvideo.core.errors import StvideoError
from stvideo.core.messages import logger
from stvideo.data.lists.leakage import doubtful_labels, shared_videos
from stvideo.data.loading.batches import ClipPreparer
from stvideo.data.loading.datasets import build_dataset
from stvideo.data.loading.loader import Loader, build_loader
from stvideo.evaluation.video_set import VideoSet
from stvideo.settings.config import Config
from stvideo.training.step import Batch


class TrainingData:
    """Training and validation set of a configuration, read and checked.

    Attributes:
        train_set, val_set: the videos; ``val_set`` is None without ``data.val``.
        classes: class names in the order of the model's outputs.
        loader: batches of this process.
        clips: turns them into what the model takes.
        global_batch: clips of one optimiser step, over all processes.
        videos_per_step: videos that these clips come from.
        steps_per_epoch: optimiser steps in which all training videos come once.

    Raises:
        StvideoError: a list is missing or wrong, the two sets have other classes, or there are too few videos.
    """

    def __init__(self, config: Config, accelerator: Accelerator) -> None:
        self.config, self.accelerator = config, accelerator
        self.train_set = build_dataset(config.data, split="train", seed=config.train.seed)
        self.classes = list(self.train_set.classes)
        self.val_set: VideoSet | None = None
        if config.data.val:
            self.val_set = VideoSet(config, accelerator, config.evaluate.during_training)
            if self.val_set.classes != self.classes:
                raise StvideoError(
                    f"data.train has {len(self.classes)} classes and data.val {len(self.val_set.classes)}, "
                    "or in another order; name them once for both with data.classes"
                )
        self._check_lists()
        self.loader = self._build_loader(config.data.batch_size)
        self.clips = ClipPreparer(config.data, accelerator.device, mixed_classes=len(self.classes))
        self.global_batch = config.data.batch_size * accelerator.num_processes * config.train.accumulation_steps
        self.videos_per_step = self.global_batch // config.data.clips_per_video
        self.steps_per_epoch = len(self.train_set) // self.videos_per_step
        if self.steps_per_epoch == 0:
            raise StvideoError(
                f"data.train={config.data.train}: {len(self.train_set)} videos do not fill one global batch of "
                f"{self.describe_batch()}; lower data.batch_size"
            )

    def steps(self, epoch: int, videos: int) -> Iterator[list[Batch]]:
        """Yield the batches of this process for each optimiser step of ``epoch`` after its first ``videos``."""
        self.loader.load_state_dict({"epoch": epoch, "offset": videos})
        batches = iter(self.loader)
        for _ in range((len(self.train_set) - videos) // self.videos_per_step):
            yield list(islice(batches, self.config.train.accumulation_steps))

    def first_clips(self, count: int) -> list[Tensor]:
        """Read the first ``count`` clips of training, or a few more, the same ones on every process.

        Returns:
            Batches (B, 3, T, H, W) as the model takes them.
        """
        size = min(self.config.data.batch_size, len(self.train_set) * self.config.data.clips_per_video)
        loader = self._build_loader(size, alone=True)
        return [self.clips.clip(batch) for batch in islice(loader, -(-count // size))]

    def facts(self) -> dict[str, Any]:
        """Return what a resume compares besides the configuration: it may change, but the user should know."""
        return {
            "processes": self.accelerator.num_processes,
            "global_batch": self.global_batch,
            "videos": len(self.train_set),
            "classes": self.classes,
        }

    def describe_batch(self) -> str:
        """Say how the global batch comes about."""
        return (
            f"{self.global_batch} (data.batch_size {self.config.data.batch_size} x {self.accelerator.num_processes} "
            f"processes x train.accumulation_steps {self.config.train.accumulation_steps})"
        )

    def _check_lists(self) -> None:
        """Warn of labels that say nothing and of validation videos that are trained on; the latter may end the run."""
        train, val = self.train_set, self.val_set.dataset if self.val_set is not None else None
        for split, dataset in (("train", train), ("val", val)):
            for note in doubtful_labels(dataset.video_index) if dataset is not None else []:
                logger.warning(f"{split}: {note}")
        if val is None:
            return
        shared = shared_videos(train.video_index, val.video_index, val.root, (train.checked, val.checked))
        if shared and self.config.data.leakage == "stop":
            raise StvideoError(f"{shared}: take them out of one list, or set data.leakage=warn")
        if shared:
            logger.warning(f"{shared}: the accuracy on them says little (data.leakage=stop ends the run instead)")

    def _build_loader(self, batch_size: int, alone: bool = False) -> Loader:
        return build_loader(
            self.train_set,
            batch_size=batch_size,
            workers=self.config.data.workers,
            seed=self.config.train.seed,
            rank=0 if alone else self.accelerator.process_index,
            world_size=1 if alone else self.accelerator.num_processes,
        )
