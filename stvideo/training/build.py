"""The networks of a run: the model being trained, its moving average, and the teacher inside the loss."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from stvideo.core.errors import StvideoError, nearest
from stvideo.core.macs import count_macs, to_meta
from stvideo.core.versions import versions
from stvideo.data.clips.preprocessing import Preprocessing
from stvideo.models.base import Backbone
from stvideo.reduction.budget import draw_budgets, set_budget, training_budgets
from stvideo.runtime.sharding import shard_copy, share_weights
from stvideo.settings.config import Config, DataConfig, ModelConfig, to_dict
from stvideo.settings.model_arguments import model_arguments
from stvideo.training.distill import TrainingLoss, check_teacher
from stvideo.training.ema import WeightAverage
from stvideo.weights.factory import create_model, load_model
from stvideo.weights.loading import initialize


class Networks:
    """Model, moving average and loss; ``notes`` are lines worth showing at the start."""

    def __init__(
        self,
        model: nn.Module,
        average: WeightAverage | None,
        criterion: TrainingLoss,
        *,
        num_classes: int,
        clip_shape: tuple[int, int, int, int, int],
        notes: list[str],
    ) -> None:
        self.model = model
        self.average = average
        self.criterion = criterion
        self.num_classes = num_classes
        self.clip_shape = clip_shape
        self.notes = notes

    @property
    def evaluated(self) -> nn.Module:
        """The network whose accuracy counts: the moving average where there is one."""
        return self.average.model if self.average is not None else self.model

    def place(self, accelerator: Accelerator) -> None:
        """Move, and under FSDP split, what Accelerate does not."""
        self.criterion.to(accelerator.device)
        if self.average is None:
            return
        if accelerator.is_fsdp2:
            if self.average.device is not None:
                raise StvideoError(
                    "train.ema_device: under FSDP the moving average is split like the model; leave it null"
                )
            shard_copy(self.average.model, accelerator)
        else:
            self.average.model.to(self.average.device or accelerator.device)

    def set_epoch(self, epoch: float) -> None:
        """Let every reduction know how far training is, for its keep-rate schedule."""
        for network in {id(n): n for n in (self.model, self.evaluated)}.values():
            for reduction in getattr(network, "reductions", {}).values():
                reduction.set_epoch(epoch)

    def draw_budgets(self, seed: int, step: int) -> None:
        """Any-budget training: draw what the reductions keep in optimiser step ``step``; the same on all processes."""
        draw_budgets(self.model, seed, step)

    def evaluated_on(self, device: torch.device) -> AbstractContextManager[None]:
        """Hold the evaluated network on ``device`` meanwhile."""
        return self.average.on(device) if self.average is not None else nullcontext()

    def reduction_summary(self) -> dict[str, float]:
        """What the reductions have to say, for the log, e.g. {"evit/keep_rate": 0.83}."""
        reductions = getattr(self.model, "reductions", {})
        return {
            f"{name}/{key}": float(value)
            for name, reduction in reductions.items()
            for key, value in reduction.state_summary().items()
        }

    def load(self, weights: dict[str, Tensor], average: dict[str, Tensor] | None, folder: Path) -> None:
        """Take the weights of a checkpoint of this very run."""
        try:
            self.model.load_state_dict(share_weights(weights, self.model), strict=True)
            if self.average is not None:
                own = share_weights(average if average is not None else weights, self.average.model)
                self.average.model.load_state_dict(own, strict=True)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise StvideoError(f"{folder}: the weights do not fit the model: {reason}") from None

    def summary(self) -> str:
        """Parameters and cost."""
        parameters = sum(p.numel() for p in self.model.parameters()) / 1e6
        gmacs = count_macs(self.model, self.clip_shape).total
        return f"{parameters:.1f} M parameters, {gmacs:.4g} GMACs per view{self._budgets_in_words()}"

    def _budgets_in_words(self) -> str:
        """The costs between which any-budget training draws, if it does."""
        budgets = training_budgets(self.model, count=2)
        if not budgets:
            return ""
        trial = to_meta(self.model)
        costs = [count_macs(set_budget(trial, budget), self.clip_shape).total for budget in budgets]
        return f", trained for every budget from {min(costs):.4g} to {max(costs):.4g}"


def build_model(model: ModelConfig, data: DataConfig, num_classes: int) -> Backbone:
    """The model that a configuration asks for; ``model.num_classes`` must agree with the data if it is given.

    Raises:
        StvideoError: as `create_model`, or the class counts differ.
    """
    if model.num_classes is not None and model.num_classes != num_classes:
        raise StvideoError(
            f"model.num_classes is {model.num_classes} but the data have {num_classes} classes; "
            "leave it null to follow them"
        )
    arguments = model_arguments(model, data) | {"num_classes": num_classes}
    network = create_model(model.name, **arguments)
    if model.grad_checkpointing:
        network.set_grad_checkpointing(True)
    return network


def build_networks(config: Config, classes: list[str], *, fresh: bool) -> Networks:
    """Build everything on the CPU; ``fresh`` runs start from ``config.init``, resumed ones from their checkpoint.

    Raises:
        StvideoError: the model cannot be built so, or weights do not fit.
    """
    torch.manual_seed(config.train.seed)
    model = build_model(config.model, config.data, len(classes))
    notes = []
    if fresh and config.init:
        notes.append(f"init={config.init}: {initialize(model, config.init).summary()}")
    freeze(model, config.train.freeze)
    if not config.train.channels_last:
        use_default_layout(model)
    average = None
    if config.train.ema_decay is not None:
        average = WeightAverage(model, config.train.ema_decay, config.train.ema_device)
    teacher = None
    if config.train.teacher:
        teacher = load_model(config.train.teacher)
        check_teacher(teacher, config, classes)
        notes.append(f"distilling from {config.train.teacher}")
    criterion = TrainingLoss(
        label_smoothing=config.train.label_smoothing,
        teacher=teacher,
        weight=config.train.distill_weight,
        temperature=config.train.distill_temperature,
    )
    shape = Preprocessing.from_config(config.data).clip_shape
    return Networks(model, average, criterion, num_classes=len(classes), clip_shape=shape, notes=notes)


def freeze(model: nn.Module, parts: Sequence[str]) -> None:
    """Leave the weights of ``parts`` (dotted names of modules or parameters) as they are.

    Raises:
        StvideoError: a part that the model does not have.
    """
    for part in parts:
        found = [weight for name, weight in model.named_parameters() if name == part or name.startswith(part + ".")]
        if not found:
            names = [name for name, _ in model.named_modules() if name.count(".") <= 1]
            raise StvideoError(f"train.freeze: the model has no part {part!r}{nearest(part, names)}")
        for weight in found:
            weight.requires_grad_(False)


def use_default_layout(model: nn.Module) -> None:
    """Give every convolution its input in torch's default layout, also where the model hands it over channels-last."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            module.register_forward_pre_hook(_contiguous)


def _contiguous(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(value.contiguous() for value in inputs)


def checkpoint_metadata(config: Config, classes: list[str]) -> dict[str, Any]:
    """What a checkpoint says about itself besides its model, so that it can be used without its configuration file."""
    return {
        "classes": list(classes),
        "preprocess": Preprocessing.from_config(config.data).to_dict(),
        "config": to_dict(config),
        "versions": versions(),
    }
