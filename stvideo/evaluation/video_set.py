"""The videos of one configuration, measured by any number of models at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from stvideo.core.errors import StvideoError
from stvideo.core.messages import logger
from stvideo.data.clips.protocols import find_protocol
from stvideo.data.loading.batches import ClipPreparer
from stvideo.data.loading.datasets import VideoDataset, build_dataset
from stvideo.data.loading.loader import build_loader
from stvideo.evaluation.metrics import Predictions, merge_views
from stvideo.settings.config import Config

Rows = tuple[list[NDArray[np.int64]], list[list[NDArray[np.float32]]]]
"""Batches of (R, 3) video, view and label, and for every model its batches of (R, K) scores."""


@dataclass
class Evaluation:
    """The outcome of measuring several models on the same videos.

    Attributes:
        predictions: of every model, on the first process; elsewhere there are none.
        clips_per_second: through all models, by all processes together, without the time that they waited for data.
        data_wait_share: share of the time that this process waited for data.
        unreadable: message by number of every video that was left out (only with ``evaluate.unreadable=list``).
    """

    predictions: list[Predictions]
    clips_per_second: float
    data_wait_share: float
    unreadable: dict[int, str] = field(default_factory=dict)


class VideoSet:
    """``data.val`` in the views of a protocol.

    Args:
        config: says which videos, how they are read, and how scores are averaged.
        accelerator: the processes that share the videos.
        views: clips x crops, or a protocol by name; default ``evaluate.views``.

    Attributes:
        protocol: clips, crops, and the official split that the number is about.
        dataset: the test views.
        official: videos in the official split, those missing here included; None if nobody says.

    Raises:
        StvideoError: the videos are not there, or the protocol contradicts the way the model reads videos.
    """

    def __init__(self, config: Config, accelerator: Accelerator, views: str | None = None) -> None:
        self.config, self.accelerator = config, accelerator
        self.protocol = find_protocol(views or config.evaluate.views, "evaluate.views")
        self.protocol.check_sampling(config.data.sampling)
        self.dataset: VideoDataset = build_dataset(
            config.data,
            split="val",
            views=self.protocol.name,
            skip_unreadable=config.evaluate.unreadable == "list",
        )
        split = self.protocol.split_for(len(self.classes))
        self.official = self.dataset.official or (split.videos if split else None)
        if self.protocol.split is not None and split is None:
            logger.warning(
                "evaluate.views=%s is the protocol of %s with %d classes; these data have %d",
                self.protocol.name,
                self.protocol.split.name,
                self.protocol.split.classes,
                len(self.classes),
            )

    @property
    def classes(self) -> list[str]:
        """Class names in the order of the data."""
        return list(self.dataset.classes)

    @property
    def clip_shape(self) -> tuple[int, int, int, int, int]:
        """Shape of one view as a model takes it, (1, 3, T, S, S)."""
        return self.dataset.reading.preprocessing.clip_shape

    def evaluate(
        self, models: Sequence[nn.Module], should_stop: Callable[[], bool] = lambda: False
    ) -> Evaluation | None:
        """Score every view with every model and average per video. Each video is decoded once for all of them.

        Args:
            models: unwrapped, on the device; all take the same clips. They are left in evaluation mode.
            should_stop: asked after every batch; once any process says yes the evaluation is given up.

        Returns:
            The outcome, or None when it was given up.

        Raises:
            StvideoError: an unreadable video (unless they are listed), views that do not cover the videos exactly
                once, or scores that are not numbers.
        """
        config, accelerator = self.config, self.accelerator
        for model in models:
            model.eval()
        # A random reduction draws the same every time.
        torch.manual_seed(config.train.seed + accelerator.process_index)
        loader = build_loader(
            self.dataset,
            batch_size=config.evaluate.batch_size or config.data.batch_size,
            workers=config.data.workers,
            seed=config.train.seed,
            rank=accelerator.process_index,
            world_size=accelerator.num_processes,
        )
        prepare = ClipPreparer(config.data, accelerator.device).clip
        own: Rows = ([], [[] for _ in models])
        stopped, clips, started = False, 0, time.perf_counter()
        quiet = None if accelerator.is_main_process else True  # None: where nobody watches
        with torch.inference_mode(), tqdm(total=len(self.dataset), unit="clip", disable=quiet, leave=False) as bar:
            for batch in loader:
                clip = prepare(batch)
                for model, scores in zip(models, own[1], strict=True):
                    with accelerator.autocast():
                        logits = model(clip).float()
                    scores.append((logits.softmax(1) if config.evaluate.average == "softmax" else logits).cpu().numpy())
                own[0].append(torch.stack([batch["index"], batch["view"], batch["label"]], dim=1).numpy())
                clips += len(clip)
                bar.update(len(clip) * accelerator.num_processes)
                stopped = should_stop()
                if stopped:
                    break
        seconds = max(time.perf_counter() - started, 1e-9)
        speed = clips / max(seconds - loader.wait_seconds, 1e-9)
        facts = gather_object([(stopped, speed, loader.unreadable)])
        if any(stopped for stopped, _, _ in facts):
            return None
        unreadable = {video: message for _, _, messages in facts for video, message in messages.items()}
        shares = _gather_on_first(own, accelerator)
        return Evaluation(
            self._merge(shares, unreadable),
            clips_per_second=sum(speed for _, speed, _ in facts),
            data_wait_share=loader.wait_seconds / seconds,
            unreadable=unreadable,
        )

    def _merge(self, shares: list[Rows], unreadable: dict[int, str]) -> list[Predictions]:
        """Merge the predictions of every model from the rows of all processes; empty where there are no ``shares``."""
        if not shares:
            return []
        videos = self.dataset.expected
        parts = [part for rows, _ in shares for part in rows]
        if not parts or len(unreadable) >= videos:
            first = next(iter(unreadable.values()), "no video was given")
            raise StvideoError(f"evaluation: none of {videos} videos could be read; the first: {first}")
        index, view, truth = np.concatenate(parts).T
        complete = ~np.isin(index, list(unreadable))  # some views of a video may have come before it broke off
        return [
            merge_views(
                index[complete],
                view[complete],
                truth[complete],
                np.concatenate([part for _, scores in shares for part in scores[number]])[complete],
                num_videos=videos - len(unreadable),
                num_views=self.protocol.clips * self.protocol.crops,
                average=self.config.evaluate.average,
            )
            for number in range(len(shares[0][1]))
        ]


def _gather_on_first(rows: Rows, accelerator: Accelerator) -> list[Rows]:
    """List the rows of all processes on the first one; elsewhere the list is empty."""
    if accelerator.num_processes == 1:
        return [rows]
    everything: list[Any] | None = [None] * accelerator.num_processes if accelerator.is_main_process else None
    torch.distributed.gather_object(rows, everything, dst=0)
    return everything or []
