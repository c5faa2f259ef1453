"""Starting Hugging Face Accelerate: processes, device and precision."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import InitProcessGroupKwargs, ProjectConfiguration

from stvideo.core.errors import StvideoError
from stvideo.runtime.sharding import prepare_fsdp

ACCELERATORS = ("cuda", "xpu", "npu", "mps")


def start_accelerator(
    *,
    precision: str = "fp32",
    output: str | Path = ".",
    trackers: list[str] | None = None,
    timeout_minutes: float = 30.0,
) -> Accelerator:
    """Create an `Accelerator` for all processes that the launcher started.

    Without an accelerator device the processes talk over gloo: ``torchrun --nproc_per_node 2`` and
    ``accelerate launch --multi_gpu --num_processes 2`` both work on a CPU machine.
    """
    if precision == "fp16" and not has_device():
        raise StvideoError("train.precision=fp16 needs a GPU; on a CPU use train.precision=bf16 or fp32")
    try:
        accelerator = Accelerator(
            cpu=not has_device(),
            mixed_precision="no" if precision == "fp32" else precision,
            log_with=list(trackers) if trackers else None,
            project_config=ProjectConfiguration(project_dir=str(output), logging_dir=str(Path(output) / "trackers")),
            kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(minutes=timeout_minutes), backend=None)],
        )
    except torch.distributed.DistError as error:
        where = f"{os.environ.get('MASTER_ADDR', '?')}:{os.environ.get('MASTER_PORT', '?')}"
        raise StvideoError(
            f"the processes of this run do not find one another at {where} ({' '.join(str(error).split())[:160]}); "
            "start all of them, with the address of the first machine and a port that is open"
        ) from None
    prepare_fsdp(accelerator)
    return accelerator


def refuse_together(message: str) -> NoReturn:
    """Raise what all processes have agreed on; none leaves while another still listens, which would abort that one."""
    PartialState().wait_for_everyone()
    PartialState().destroy_process_group()
    raise StvideoError(message)


def has_device() -> bool:
    """Tell whether torch sees an accelerator device."""
    return any(bool(getattr(torch, name, None)) and getattr(torch, name).is_available() for name in ACCELERATORS)
