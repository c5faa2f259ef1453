"""Checks of this machine: functions that return what they found, and raise where something is missing or broken."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from packaging.requirements import Requirement
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from stvideo.data.video.decode import Video

EXTRAS = ("", "onnx", "torchcodec")
REPLACED = ("decord", "pytorchvideo", "tensorboard", "onnx", "onnxscript", "onnxruntime", "torchcodec")
"""Packages that something else stands in for, or that one command alone needs."""
CODECS = dict(
    h264="libx264 .mp4", hevc="libx265 .mp4", vp9="libvpx-vp9 .webm", mpeg4="mpeg4 .avi", av1="libsvtav1 .mp4"
)
"""An encoder of each codec, and the suffix of its files."""
FRAMES, SIDE, STEP = 12, 64, 16  # frame i of a clip is gray level 30 + 16 i
WANTED = [7, 2, 11, 0]
FUSED = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION]
SHARED = Path("/dev/shm")  # where torch's loader processes put batches on Linux
GIB = 2**30


def requirements() -> Iterator[tuple[str, str, bool]]:
    """List the package's own requirements on this machine: name, requirement for pip, whether nothing replaces it."""
    for text in metadata.requires("stvideo") or []:
        wanted = Requirement(text)
        if wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in EXTRAS):
            yield wanted.name, f"{wanted.name}{wanted.specifier}", wanted.name not in REPLACED


def check_package(text: str) -> str:
    """Import the package of a requirement such as ``torch>=2.6``; returns its version."""
    wanted = Requirement(text)
    try:
        version = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        raise RuntimeError("not installed") from None
    importlib.import_module({"pillow": "PIL"}.get(wanted.name, wanted.name))
    if version not in wanted.specifier:
        raise RuntimeError(f"{version}, which is not {wanted.specifier}")
    return version


def check_decoder(decoder: str, codec: str, folder: str) -> str:
    """Read frames of a tiny clip of ``codec`` out of order; it is encoded into ``folder`` unless it is there."""
    encoder, suffix = CODECS[codec].split()
    path = Path(folder) / f"{codec}{suffix}"
    if not path.exists():
        _encode(path, encoder)
    with Video(path, decoder, timeout=20) as video:
        levels = video.read(WANTED).float().mean((1, 2, 3))
    numbers = [round((float(level) - 30) / STEP) for level in levels]
    if numbers != WANTED:
        raise RuntimeError(f"frames {numbers} came instead of {WANTED}")
    return "right frames in any order"


def _encode(path: Path, encoder: str) -> None:
    os.environ["SVT_LOG"] = "1"  # errors only
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(encoder, rate=30, options={"x265-params": "log-level=none"})
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
        for number in range(FRAMES):
            picture = np.full((SIDE, SIDE, 3), 30 + STEP * number, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def check_gpu() -> str:
    """Multiply on every CUDA device; returns their names."""
    if not torch.cuda.is_available():
        raise RuntimeError(f"none found{'' if torch.version.cuda else ', and torch was built without CUDA'}")
    devices = range(torch.cuda.device_count())
    for number in devices:
        ones = torch.ones(64, 64, device=f"cuda:{number}")
        if float((ones @ ones).sum()) != 64**3:
            raise RuntimeError(f"GPU {number} computes a wrong product")
    return "; ".join(torch.cuda.get_device_name(number) for number in devices)


def check_attention(device: str) -> str:
    """List the number formats in which a fused attention kernel runs."""
    works = []
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        heads = torch.zeros(1, 2, 16, 64, dtype=dtype, device=device)
        with contextlib.suppress(RuntimeError), sdpa_kernel(FUSED):
            scaled_dot_product_attention(heads, heads, heads)
            works.append(str(dtype).removeprefix("torch."))
    if not works:
        raise RuntimeError("no fused kernel runs")
    return f"fused in {', '.join(works)}"


def check_folder(folder: str) -> str:
    """Write a file in ``folder``, or in the nearest folder above it that exists, and look for 2 GiB of room there."""
    path = Path(folder).absolute()
    existing = next(path for path in (path, *path.parents) if path.exists())
    with tempfile.NamedTemporaryFile(dir=existing) as file:
        file.write(b"x")
    free = shutil.disk_usage(existing).free
    if free < 2 * GIB:
        raise RuntimeError(f"{path} has {free / GIB:.1f} GiB left")
    return f"{path}, {free / GIB:.0f} GiB free"


def check_shared_memory() -> str:
    """Put four batches of 8 clips where loader processes put theirs; containers often have 64 MiB of it."""
    torch.ones(4, 8, 3, 8, 224, 224, dtype=torch.uint8).share_memory_()
    free = shutil.disk_usage(SHARED).free if SHARED.is_dir() else GIB
    if free < GIB:
        raise RuntimeError(f"{free / 2**20:.0f} MiB free in {SHARED}")
    return "holds four batches of 8 clips"
