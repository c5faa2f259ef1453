"""What a measured number stands on: the machine and the versions."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Processor or GPU, threads and versions, as JSON-serialisable values."""
    found: dict[str, Any] = {
        "device": str(device),
        "processor": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "stvideo": metadata.version("stvideo"),
    }
    if device.type == "cuda":
        found["cuda"] = torch.version.cuda
        found["float32_products"] = torch.get_float32_matmul_precision()  # "highest" is without TF32
    return found


def machine_line(machine: dict[str, Any]) -> str:
    """The same as one line for people."""
    cuda = f", CUDA {machine['cuda']}" if machine.get("cuda") else ""
    if machine.get("float32_products", "highest") != "highest":
        cuda += f", float32 products in {machine['float32_products']!r} precision"
    return (
        f"{machine['processor']}, {machine['threads']} of {machine['cores']} cores used, "
        f"torch {machine['torch']}{cuda}, Python {machine['python']}, stvideo {machine['stvideo']}"
    )


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
