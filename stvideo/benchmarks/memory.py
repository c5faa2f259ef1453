"""How much memory a call needs at its peak, beyond what is there before it."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stvideo.benchmarks.timing import synchronize

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")


def peak_memory(run: Callable[[], Any], device: torch.device) -> float | None:
    """MiB that ``run`` adds at its peak to what the process holds: activations, and gradients if it trains.

    On CUDA this is what torch allocates, on Linux the resident memory of the process; elsewhere it is None.
    """
    gc.collect()
    if device.type == "cuda":
        synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    return _peak_resident(run)


def saved_activations(run: Callable[[], Any], model: nn.Module) -> float:
    """MiB that the forward pass inside ``run`` keeps for the backward pass, the model's own weights aside."""
    own = {value.untyped_storage().data_ptr() for value in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        run()
    return sum(kept.values()) / 2**20


def _peak_resident(run: Callable[[], Any]) -> float | None:
    try:
        _give_back_freed_memory()
        CLEAR_REFS.write_text("5")  # sets the high-water mark to what is resident now
        before = _status("VmRSS")
        run()
        return (_status("VmHWM") - before) / 1024
    except OSError:
        return None


def _give_back_freed_memory() -> None:
    """Let the C library return what it keeps for later, which would hide new memory that lands in it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _status(key: str) -> float:
    """A value of /proc/self/status in KiB."""
    for line in STATUS.read_text().splitlines():
        if line.startswith(key + ":"):
            return float(line.split()[1])
    raise OSError(f"{STATUS}: no {key}")
