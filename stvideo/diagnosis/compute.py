"""What computes here: cores, GPUs, attention kernels, the compiler, and how processes talk to each other."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from stvideo.diagnosis.finding import BROKEN, LESS, OK, Finding

GROUP = "computing"
KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "memory-efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
    "plain": SDPBackend.MATH,
}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def check_processor() -> list[Finding]:
    """Cores, threads and vector instructions."""
    cores = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    capability = torch.backends.cpu.get_cpu_capability()
    text = f"{usable} of {cores} cores usable, {capability}"
    advice = "data.workers no higher than the usable cores" if usable < cores else ""
    found = [Finding(GROUP, "processor", LESS if usable < cores else OK, text, advice)]
    bf16 = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    words = "the processor has instructions for it" if bf16 else "the processor has no instructions for it"
    slow = "" if bf16 else "train.precision=fp32 on this processor"
    return [*found, Finding(GROUP, "bf16 on the processor", OK if bf16 else LESS, words, slow)]


def check_gpu() -> list[Finding]:
    """Every CUDA device, with a product computed on it."""
    if not torch.cuda.is_available():
        built = "" if torch.version.cuda else ", and torch was built without CUDA"
        advice = "fine for trying out; training needs a GPU, its driver and a CUDA build of torch"
        return [Finding(GROUP, "GPU", LESS, f"none found{built}", advice)]
    found = []
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        text = f"{about.name}, {about.total_memory / 2**30:.0f} GiB, compute capability {about.major}.{about.minor}"
        try:
            ones = torch.ones(64, 64, device=f"cuda:{number}")
            if float((ones @ ones).sum()) != 64**3:
                raise RuntimeError("a product came out wrong")
            bf16 = torch.cuda.is_bf16_supported()
            advice = "" if bf16 else "train.precision=fp16: it has no bf16"
            found.append(Finding(GROUP, f"GPU {number}", OK if bf16 else LESS, text, advice))
        except RuntimeError as error:
            words = " ".join(str(error).split())[:120]
            found.append(Finding(GROUP, f"GPU {number}", BROKEN, f"{text}: {words}", "check driver and CUDA version"))
    return found


def check_attention() -> list[Finding]:
    """Which fused attention kernels run, by device and number format."""
    found = []
    for device in ["cpu"] + ["cuda"] * torch.cuda.is_available():
        works = {
            kernel: [name for name, dtype in DTYPES.items() if _attends(backend, dtype, device)]
            for kernel, backend in KERNELS.items()
        }
        text = "; ".join(f"{kernel} {' '.join(names)}" for kernel, names in works.items() if names)
        fused = bool(works["flash"] or works["memory-efficient"])
        level = BROKEN if not works["plain"] else OK if fused else LESS
        advice = "" if fused else "a newer torch: without fused attention long clips need much memory"
        found.append(Finding(GROUP, f"attention on {device}", level, text or "no kernel runs", advice))
    return found


def _attends(backend: SDPBackend, dtype: torch.dtype, device: str) -> bool:
    heads = torch.zeros(1, 2, 16, 64, dtype=dtype, device=device)
    try:
        with sdpa_kernel(backend):
            functional.scaled_dot_product_attention(heads, heads, heads)
    except RuntimeError:
        return False
    return True


def check_compiler() -> list[Finding]:
    """Whether ``torch.compile`` works, which needs a C++ compiler (and Triton on a GPU)."""
    name = "torch.compile"
    advice = "install a C++ compiler (apt-get install g++), or leave train.compile=false"
    if os.name == "posix" and not any(shutil.which(c) for c in (os.environ.get("CXX") or "g++", "clang++", "c++")):
        return [Finding(GROUP, name, LESS, "there is no C++ compiler", advice)]
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    started = time.perf_counter()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache  # what was compiled earlier would prove nothing
        try:
            values = torch.arange(64.0, device=device)
            result = torch.compile(lambda x: (x * 2 + 1).relu().sum(), fullgraph=True)(values)
            if float(result) != 64 * 64:
                raise RuntimeError("the compiled function computes something else")
        except Exception as error:
            return [Finding(GROUP, name, LESS, " ".join(str(error).split())[:160], advice)]
    return [
        Finding(GROUP, name, OK, f"works on {device}, {time.perf_counter() - started:.0f} s for the first function")
    ]


def check_distributed() -> list[Finding]:
    """Whether processes can be joined: gloo on the processor, NCCL on GPUs."""
    name = "several processes"
    if not torch.distributed.is_available():
        return [Finding(GROUP, name, LESS, "torch was built without torch.distributed", "another build of torch")]
    found = []
    for backend in ["gloo"] + ["nccl"] * torch.cuda.is_available():
        device = "cpu" if backend == "gloo" else "cuda"
        try:
            with tempfile.TemporaryDirectory() as folder:
                store = torch.distributed.FileStore(str(Path(folder) / "store"), 1)
                torch.distributed.init_process_group(backend, store=store, rank=0, world_size=1)
                torch.distributed.all_reduce(torch.ones(1, device=device))
                torch.distributed.destroy_process_group()
            found.append(Finding(GROUP, f"{name}, {backend}", OK, "works"))
        except (RuntimeError, ValueError) as error:
            words = " ".join(str(error).split())[:120]
            found.append(
                Finding(GROUP, f"{name}, {backend}", LESS, words, "train with one process, or reinstall torch")
            )
    if not torch.cuda.is_available():
        found.append(Finding(GROUP, f"{name}, nccl", OK, "not needed without a GPU"))
    return found
