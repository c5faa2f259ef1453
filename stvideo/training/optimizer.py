"""Optimisers and their parameter groups: weight decay, layer-wise decay, a learning rate of its own for the head."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from timm.models import group_parameters
from torch import nn

from stvideo.core.errors import StvideoError
from stvideo.settings.schema import TrainConfig

FUSED_DEVICES = ("cpu", "cuda", "mps", "xpu")  # that torch has fused update kernels for


def build_optimizer(
    model: nn.Module, config: TrainConfig, lr: float, device: torch.device | None = None, sharded: bool = False
) -> torch.optim.Optimizer:
    """Create AdamW or SGD over the trainable parameters of ``model``.

    Args:
        lr: the peak learning rate.
        device: where the model will be trained; None for the CPU.
        sharded: whether the weights are split over processes, which torch's fused SGD does not know.
    """
    has_kernel = (device is None or device.type in FUSED_DEVICES) and not (sharded and config.optimizer == "sgd")
    fused = (config.fused and has_kernel) or None  # None leaves it to torch
    groups = parameter_groups(
        model, weight_decay=config.weight_decay, layer_decay=config.layer_decay, head_lr_scale=config.head_lr_scale
    )
    for group in groups:
        group["lr"] = lr * group["lr_scale"]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=config.momentum, nesterov=config.momentum > 0, fused=fused)
    return torch.optim.AdamW(groups, lr=lr, betas=(config.betas[0], config.betas[1]), fused=fused)


def parameter_groups(
    model: nn.Module, *, weight_decay: float, layer_decay: float | None = None, head_lr_scale: float = 1.0
) -> list[dict[str, Any]]:
    """Sort the trainable parameters into groups of equal weight decay and equal learning rate.

    Biases, norms and whatever ``model.no_weight_decay()`` names are not decayed. With ``layer_decay`` d, a layer
    that is k layers below the head learns at d**k times the learning rate (BEiT, arXiv 2106.08254); the layers
    come from timm's ``group_matcher``.

    Returns:
        Groups with "params", "weight_decay", "lr_scale" and "names", in the order in which the model has them.
    """
    exempt = set(model.no_weight_decay()) if hasattr(model, "no_weight_decay") else set()  # type: ignore[operator]
    layers: dict[str, int] = {}
    if layer_decay is not None:
        layers = group_parameters(model, model.group_matcher(coarse=False), reverse=True)  # type: ignore[operator, assignment]
    last_layer = max(layers.values(), default=0)
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decay = 0.0 if parameter.ndim <= 1 or name in exempt else weight_decay
        scale = 1.0 if layer_decay is None else layer_decay ** (last_layer - layers.get(name, last_layer))
        if name.split(".")[0] == "head":
            scale *= head_lr_scale
        group = groups.setdefault((scale, decay), {"params": [], "names": [], "weight_decay": decay, "lr_scale": scale})
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def load_optimizer(
    optimizer: torch.optim.Optimizer, state: dict[str, Any], saved_name: str, config: TrainConfig, folder: Path
) -> None:
    """Take over the state of a checkpoint; weight decay, momentum and the like are those of ``config``.

    Raises:
        StvideoError: the state is another optimiser's, or of other parameter groups.
    """
    if saved_name != config.optimizer:
        raise StvideoError(f"{folder}: cannot continue: train.optimizer was {saved_name}, is {config.optimizer}")
    wanted = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    try:
        # Ours from the start: whether the update is fused decides on which device the counts of steps belong.
        groups = [{**saved, **own} for saved, own in zip(state["param_groups"], wanted, strict=True)]
        optimizer.load_state_dict({**state, "param_groups": groups})
    except (ValueError, KeyError):
        raise StvideoError(
            f"{folder}: cannot continue: train.layer_decay, head_lr_scale, freeze or weight_decay sort the weights "
            "otherwise than before; set them back, or start a new run with init="
        ) from None


def set_learning_rate(param_groups: Iterable[dict[str, Any]], lr: float) -> None:
    """Set the learning rate of this optimiser step; every group keeps its own scale."""
    for group in param_groups:
        group["lr"] = lr * group["lr_scale"]


def peak_learning_rate(config: TrainConfig, global_batch: int) -> float:
    """Scale ``train.lr`` linearly to ``global_batch`` clips where ``train.lr_batch_size`` is set."""
    return config.lr * (global_batch / config.lr_batch_size if config.lr_batch_size else 1.0)
