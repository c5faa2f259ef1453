"""FSDP: weights, gradients and optimiser state split over the processes, for models that do not fit on one GPU.

Accelerate switches it on (configs/accelerate/fsdp.yaml) and shards the model as a whole; here every transformer block
becomes a unit of its own, gathered when it runs. Checkpoints hold whole weights and a whole optimiser state, so that a
run may be continued with FSDP or without it, and evaluated by anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.utils import get_total_norm

from stvideo.core.errors import StvideoError
from stvideo.reduction.apply import reductions_of


def prepare_fsdp(accelerator: Accelerator) -> None:
    """Check the way in which Accelerate is to split the model, and allow FSDP on a CPU too, which only torch does.

    Raises:
        StvideoError: FSDP of the first version, DeepSpeed, Megatron.
    """
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    kind = accelerator.distributed_type
    if kind in (DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM):
        raise StvideoError(
            f"training does not run under {kind.value}; for large models use configs/accelerate/fsdp.yaml"
        )
    if plugin is None and kind == DistributedType.MULTI_CPU:
        plugin = _plugin_of_launcher()
    if plugin is None:
        return
    if plugin.fsdp_version != 2:
        raise StvideoError("training runs under FSDP 2 only: set fsdp_version: 2, as in configs/accelerate/fsdp.yaml")
    plugin.cpu_ram_efficient_loading = False  # every process reads the weights itself; nothing is left on "meta"
    if kind == DistributedType.MULTI_CPU:
        if accelerator.mixed_precision != "no":
            plugin.set_mixed_precision(accelerator.mixed_precision)
        accelerator.state.fsdp_plugin = plugin
        for state in (accelerator.state, PartialState()):  # every new AcceleratorState copies the latter
            state.distributed_type = DistributedType.FSDP


def shard_blocks(model: nn.Module, accelerator: Accelerator) -> None:
    """Make each transformer block a unit, before Accelerate shards the rest. Nothing without FSDP.

    Blocks whose parts a reduction calls one by one (STGM) stay with the rest, which is gathered as a whole.
    """
    if accelerator.is_fsdp2:
        for block in _units(model, accelerator.num_processes):
            fully_shard(block, **_options(accelerator))  # type: ignore[call-overload]


def shard_copy(model: nn.Module, accelerator: Accelerator) -> None:
    """Shard a copy of the trained model, such as its moving average, as the model itself is."""
    shard_blocks(model, accelerator)
    fully_shard(model, **_options(accelerator))  # type: ignore[call-overload]


def local(tensor: Tensor) -> Tensor:
    """Return this process's shard of a tensor; without FSDP all of it."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def gradient_norm(parameters: Iterable[Tensor]) -> Tensor:
    """Norm () of all gradients as one vector, those split over processes included; they are only read.

    Under FSDP all processes have to call it together.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    split = [gradient for gradient in gradients if isinstance(gradient, DTensor)]
    norms = [get_total_norm([gradient for gradient in gradients if not isinstance(gradient, DTensor)])]
    if split:
        total = get_total_norm(split)
        norms.append(total.full_tensor() if isinstance(total, DTensor) else total)
    return torch.linalg.vector_norm(torch.stack([norm.to(norms[-1].device) for norm in norms]))


def whole(value: Any) -> Any:
    """Gather DTensors in a state dict to full CPU tensors; other values stay. Collective."""
    if isinstance(value, DTensor):
        return value.full_tensor().cpu()
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items()}
    return [whole(item) for item in value] if isinstance(value, list) else value


def shard_state(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Shard a full ``state`` as ``model`` is sharded."""
    current = model.state_dict()
    return {name: _shard(tensor, current.get(name)) for name, tensor in state.items()}


def shard_optimizer(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Shard a full optimiser state as the parameters of ``optimizer`` are sharded."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    shards: dict[int, Any] = {}
    for number, values in state["state"].items():
        like = parameters[number] if number < len(parameters) else None
        shards[number] = {
            key: _shard(value, like) if like is not None and getattr(value, "shape", None) == like.shape else value
            for key, value in values.items()
        }
    return {**state, "state": shards}


@contextmanager
def gathered(model: nn.Module, accelerator: Accelerator) -> Iterator[None]:
    """Hold all weights on every process, so that each may run ``model`` as often as it has batches. For evaluation."""
    units = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for unit in units:
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()
    try:
        yield
    finally:
        for unit in units:
            unit.reshard()
            again = unit is not model and accelerator.state.fsdp_plugin.reshard_after_forward
            unit.set_reshard_after_forward(again, recurse=False)


def _plugin_of_launcher() -> Any:
    """Return the plugin that `accelerate launch --use_fsdp` asked for; Accelerate drops it on a CPU."""
    asked = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    return FullyShardedDataParallelPlugin() if asked else None


def _options(accelerator: Accelerator) -> dict[str, Any]:
    """Return the arguments that Accelerate passes to `fully_shard`, so that all parts are sharded alike."""
    plugin = accelerator.state.fsdp_plugin
    return {
        "reshard_after_forward": plugin.reshard_after_forward,
        "offload_policy": plugin.cpu_offload,
        "mp_policy": plugin.mixed_precision_policy or MixedPrecisionPolicy(),
    }


def _units(model: nn.Module, processes: int) -> list[nn.Module]:
    """List the blocks that run as modules, from the lists named ``blocks``."""
    opened: set[int] = set()
    for reduction in reductions_of(model).values():
        if "replace" in reduction.hooks:
            opened.update(
                number for first in reduction.layers for number in range(first, first + reduction.span_from(first))
            )
    found = []
    for name, module in model.named_modules():
        if name.split(".")[-1] != "blocks" or not isinstance(module, nn.ModuleList):
            continue
        for number, block in enumerate(module):
            whole_rows = all(weight.shape and len(weight) >= processes for weight in block.parameters())
            if whole_rows and not (name == "blocks" and number in opened):
                found.append(block)
    return found


def _shard(tensor: Tensor, like: Any) -> Tensor:
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
