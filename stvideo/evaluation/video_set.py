"""The videos of one configuration, ready to be measured by any number of models."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from accelerate import Accelerator
from torch import nn
from tqdm import tqdm

from stvideo.core.messages import logger
from stvideo.data.clips.protocols import find_protocol
from stvideo.data.loading.batches import ClipPreparer
from stvideo.data.loading.datasets import VideoDataset, build_dataset
from stvideo.data.loading.loader import build_loader
from stvideo.evaluation.runner import Evaluation, evaluate_models
from stvideo.settings.config import Config


class VideoSet:
    """``data.val`` as ``evaluate.views`` looks at it.

    Attributes:
        protocol: clips, crops, and the official split that the number is about.
        dataset: the test views.
        official: videos in the official split, those missing here included; None if nobody says.

    Raises:
        StvideoError: the videos are not there, or the protocol contradicts the way the model reads videos.
    """

    def __init__(self, config: Config, accelerator: Accelerator) -> None:
        self.config, self.accelerator = config, accelerator
        self.protocol = find_protocol(config.evaluate.views, "evaluate.views")
        self.protocol.check_sampling(config.data.sampling)
        self.dataset: VideoDataset = build_dataset(
            config.data,
            split="val",
            views=self.protocol.views,
            skip_unreadable=config.evaluate.unreadable == "list",
        )
        split = self.protocol.split_for(len(self.classes))
        self.official = self.dataset.official or (split.videos if split else None)
        if self.protocol.split is not None and split is None:
            logger.warning(
                f"evaluate.views={self.protocol.name} is the protocol of {self.protocol.split.name} with "
                f"{self.protocol.split.classes} classes; these data have {len(self.classes)}"
            )

    @property
    def classes(self) -> list[str]:
        """Class names in the order of the data."""
        return list(self.dataset.classes)

    @property
    def clip_shape(self) -> tuple[int, int, int, int, int]:
        """What a model takes of one view, (1, 3, T, S, S)."""
        return self.dataset.reading.preprocessing.clip_shape

    def evaluate(self, models: Sequence[nn.Module]) -> list[Evaluation]:
        """Measure ``models``, which are on the device; every video is decoded once for all of them.

        Raises:
            StvideoError: an unreadable video (unless they are listed), or scores that are not numbers.
        """
        config, accelerator = self.config, self.accelerator
        # A random reduction draws the same every time.
        torch.manual_seed(config.train.seed + accelerator.process_index)
        loader = build_loader(
            self.dataset,
            batch_size=config.evaluate.batch_size or config.data.batch_size,
            workers=config.data.workers,
            seed=config.train.seed,
            rank=accelerator.process_index,
            world_size=accelerator.num_processes,
            train=False,
            device=accelerator.device,
        )
        quiet = None if accelerator.is_main_process else True
        with tqdm(total=len(self.dataset), unit="clip", disable=quiet) as bar:
            outcomes = evaluate_models(
                models,
                loader,
                accelerator=accelerator,
                prepare=ClipPreparer(config.data, accelerator.device, num_classes=len(self.classes)).clip,
                num_videos=self.dataset.expected,
                num_views=self.protocol.clips * self.protocol.crops,
                average=config.evaluate.average,
                on_batch=lambda count: bar.update(count * accelerator.num_processes) and None,
            )
        assert outcomes is not None  # nothing asks it to stop
        return outcomes
