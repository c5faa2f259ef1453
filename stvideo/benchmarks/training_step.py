"""A training step as a function without arguments: the code of `stvideo.train` on clips that are made up."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from accelerate.state import AcceleratorState
from torch import Tensor

from stvideo.data.loading.batches import ClipPreparer
from stvideo.runtime.processes import start_accelerator
from stvideo.runtime.sharding import shard_blocks
from stvideo.settings.config import Config
from stvideo.training.build import build_networks
from stvideo.training.compiling import compile_model
from stvideo.training.optimizer import build_optimizer, set_learning_rate
from stvideo.training.step import Batch, seed_step, take_step

TINY_RATE = 1e-9  # steps on noise must not lead the weights astray


@dataclass
class Stepper:
    """One configuration, ready to take steps: networks, optimiser and batches, as a `Session` builds them.

    Args:
        config: of a training run; its files are not read, its teacher is left out.

    Raises:
        StvideoError: this machine cannot train so.
    """

    config: Config
    steps: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        config = self.config
        AcceleratorState._reset_state()  # Accelerate allows one precision per process; here each stepper has its own
        self.accelerator = start_accelerator(precision=config.train.precision)
        self._state = dict(AcceleratorState._shared_state)
        self.device = self.accelerator.device
        classes = config.model.num_classes or 400
        self.networks = build_networks(config, [str(number) for number in range(classes)], fresh=False)
        model = self.networks.model.train()
        if config.train.compile:
            compile_model(model)
        shard_blocks(model, self.accelerator)
        optimizer = build_optimizer(model, config.train, TINY_RATE, self.device)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.networks.place(self.accelerator)
        self.clips = ClipPreparer(config.data, self.device, num_classes=classes, mixing=True)
        self.batches = [made_up_batch(config, classes, number) for number in range(config.train.accumulation_steps)]

    def activate(self) -> None:
        """Make Accelerate's state the one that this stepper was built with."""
        AcceleratorState._shared_state.clear()
        AcceleratorState._shared_state.update(self._state)

    def __call__(self) -> None:
        """One optimiser step."""
        self.activate()
        config = self.config
        set_learning_rate(self.optimizer.param_groups, TINY_RATE)
        self.networks.set_epoch(0.0)
        self.networks.draw_budgets(config.train.seed, self.steps)
        take_step(
            accelerator=self.accelerator,
            model=self.model,
            criterion=self.networks.criterion,
            optimizer=self.optimizer,
            batches=self.batches,
            prepare=self.clips.clip_and_target,
            clip_grad_norm=config.train.clip_grad_norm,
            seed=self.seed,
        )
        if self.networks.average is not None:
            self.networks.average.update(self.networks.model, self.steps)
        self.steps += 1

    def seed(self) -> None:
        """Make the draws of the coming step what they would be in training."""
        seed_step(self.config.train.seed, self.steps, self.accelerator.process_index)
        self.clips.seed(self.config.train.seed * 1_000_003 + self.steps)

    @property
    def clips_per_step(self) -> int:
        """Of all processes together."""
        config = self.config
        return config.data.batch_size * config.train.accumulation_steps * self.accelerator.num_processes

    def forget_gradients(self) -> None:
        """Free the gradients of the last step, which the next one would."""
        self.optimizer.zero_grad()

    def held_mib(self) -> float:
        """MiB that stay on the training device between steps: weights, optimiser state, moving average."""
        average = self.networks.average
        state: Any = self.optimizer.state
        tensors = chain(
            self.networks.model.parameters(),
            self.networks.model.buffers(),
            (value for values in state.values() for value in values.values() if isinstance(value, Tensor)),
            chain(average.model.parameters(), average.model.buffers()) if average is not None else (),
        )
        mine = {id(t): t for t in tensors if t.device.type == self.device.type}.values()
        return sum(t.numel() * t.element_size() for t in mine) / 2**20


def made_up_batch(config: Config, classes: int, number: int) -> Batch:
    """Noise in the form in which the loader gives clips; the same for the same ``number``."""
    data, generator = config.data, torch.Generator().manual_seed(number)
    shape = (data.batch_size, 3, data.num_frames, data.img_size, data.img_size)
    return {
        "video": torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator),
        "label": torch.randint(0, classes, shape[:1], generator=generator),
        "index": torch.arange(data.batch_size),
    }
