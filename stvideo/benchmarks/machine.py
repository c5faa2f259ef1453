"""The machine and the versions that a measured number depends on."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import torch


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Describe processor or GPU, threads and versions, as JSON-serialisable values."""
    processor = platform.processor() or platform.machine()
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        processor = next(line for line in lines if line.startswith("model name")).split(":", 1)[1].strip()
    cuda = device.type == "cuda"
    return {
        "device": str(device),
        "processor": torch.cuda.get_device_name(device) if cuda else processor,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "stvideo": metadata.version("stvideo"),
        "cuda": torch.version.cuda if cuda else None,
        "float32_products": torch.get_float32_matmul_precision(),  # "highest" is without TF32
    }


def machine_line(machine: dict[str, Any]) -> str:
    """Put the same in one line for people."""
    cuda = f", CUDA {machine['cuda']}" if machine["cuda"] else ""
    if cuda and machine["float32_products"] != "highest":
        cuda += f", float32 products in {machine['float32_products']!r} precision"
    return (
        f"{machine['processor']}, {machine['threads']} of {machine['cores']} cores used, "
        f"torch {machine['torch']}{cuda}, Python {machine['python']}, stvideo {machine['stvideo']}"
    )
