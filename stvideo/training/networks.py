"""The networks of a run: the model being trained, its moving average, and the loss with its teacher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from stvideo.core.errors import StvideoError, nearest
from stvideo.core.macs import count_macs, to_meta
from stvideo.models.base import Backbone
from stvideo.reduction.apply import calibrate
from stvideo.reduction.budget import set_budget, training_budgets
from stvideo.runtime.sharding import shard_copy, shard_state
from stvideo.settings.config import Config
from stvideo.training.ema import WeightAverage
from stvideo.training.losses import TrainingLoss, check_teacher
from stvideo.weights.configured import build_model
from stvideo.weights.factory import load_model
from stvideo.weights.loading import initialize


class Networks:
    """Model, moving average and loss of a run, built on the CPU.

    Args:
        config: a resumed run takes its weights from a checkpoint afterwards, see `load`.
        classes: names of the classes.
        fresh: start from ``config.init``, and calibrate the reductions that want it.
        first_clips: reads so many training clips, as batches on the device.

    Attributes:
        model: the network being trained.
        average: its moving average, if there is one.
        criterion: the loss.
        notes: lines worth showing at the start.

    Raises:
        StvideoError: the model cannot be built so, or weights do not fit.
    """

    def __init__(
        self, config: Config, classes: list[str], *, fresh: bool, first_clips: Callable[[int], list[Tensor]]
    ) -> None:
        torch.manual_seed(config.train.seed)
        train = config.train
        self.notes: list[str] = []
        self.model: Backbone = build_model(config.model, config.data, len(classes))
        if fresh and config.init:
            self.notes.append(f"init={config.init}: {initialize(self.model, config.init).summary()}")
        if fresh and any(reduction.needs_calibration for reduction in self.model.active_reductions()):
            clips = first_clips(train.calibration_clips)
            calibrate(self.model.to(clips[0].device).eval(), clips)
            self.model.train()
            self.notes.append(f"reductions calibrated on {sum(map(len, clips))} training clips")
        freeze(self.model, train.freeze)
        if not train.channels_last:
            use_default_layout(self.model)
        self.average: WeightAverage[Backbone] | None = None
        if train.ema_decay is not None:
            self.average = WeightAverage(self.model, train.ema_decay, train.ema_device)
        teacher = None
        if train.teacher:
            teacher = load_model(train.teacher)
            check_teacher(teacher, config, classes)
            self.notes.append(f"distilling from {train.teacher}")
        self.criterion = TrainingLoss(
            self.model,
            label_smoothing=train.label_smoothing,
            teacher=teacher,
            weight=train.distill_weight,
            temperature=train.distill_temperature,
        )

    @property
    def evaluated(self) -> Backbone:
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
        """Tell every reduction how far training is, for its keep-rate schedule."""
        for network in {id(n): n for n in (self.model, self.evaluated)}.values():
            for reduction in network.active_reductions():
                reduction.set_epoch(epoch)

    def evaluated_on(self, device: torch.device) -> AbstractContextManager[None]:
        """Hold the evaluated network on ``device`` meanwhile."""
        return self.average.on(device) if self.average is not None else nullcontext()

    def reduction_summary(self) -> dict[str, float]:
        """Collect numbers of the reductions for the log, e.g. {"evit/keep_rate": 0.83}."""
        return {
            f"{reduction.name}/{key}": float(value)
            for reduction in self.model.active_reductions()
            for key, value in reduction.state_summary().items()
        }

    def load(self, weights: dict[str, Tensor], average: dict[str, Tensor] | None, folder: Path) -> None:
        """Take the weights of a checkpoint of this very run, whole on every process."""
        try:
            self.model.load_state_dict(shard_state(weights, self.model), strict=True)
            if self.average is not None:
                own = shard_state(average if average is not None else weights, self.average.model)
                self.average.model.load_state_dict(own, strict=True)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise StvideoError(f"{folder}: the weights do not fit the model: {reason}") from None

    def summary(self, clip_shape: tuple[int, ...]) -> str:
        """Say how many parameters there are, and what a clip costs; the range of costs in any-budget training."""
        parameters = sum(p.numel() for p in self.model.parameters()) / 1e6
        text = f"{parameters:.1f} M parameters, {count_macs(self.model, clip_shape).total:.4g} GMACs per view"
        budgets = training_budgets(self.model, count=2)
        if budgets:
            trial = to_meta(self.model)
            costs = [count_macs(set_budget(trial, budget), clip_shape).total for budget in budgets]
            text += f", trained for every budget from {min(costs):.4g} to {max(costs):.4g}"
        return text


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
