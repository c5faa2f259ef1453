"""Memory that does not suffice, of a GPU or of the host: told in one line that says which setting to lower."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from stvideo.core.errors import StvideoError
from stvideo.settings.config import Config

# What torch says where it has no error class of its own: on a CPU, for CUDA itself, for cuBLAS and cuDNN.
SIGNS = ("can't allocate memory", "Cannot allocate memory", "out of memory", "ALLOC_FAILED", "bad_alloc")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that memory, of a GPU or of the host, did not suffice."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)


@contextmanager
def explained(doing: str, use: str) -> Iterator[None]:
    """What runs out of memory inside raises ``StvideoError("memory is full (DOING); use USE")`` instead."""
    try:
        yield
    except (RuntimeError, MemoryError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        raise StvideoError(f"memory is full ({doing}); use {use}") from None


def for_evaluation(config: Config) -> tuple[str, str]:
    """What an evaluation does with memory, and what to change when it is full, as settings to copy."""
    batch_size = config.evaluate.batch_size or config.data.batch_size
    if batch_size > 1:
        return f"evaluating, evaluate.batch_size={batch_size}", f"evaluate.batch_size={max(1, batch_size // 2)}"
    ways = ["train.precision=bf16"] if config.train.precision == "fp32" else []
    ways += ["data.workers=0"] if config.data.workers else []
    return "evaluating, evaluate.batch_size=1", ", or ".join([*ways, "a model.reduction that keeps fewer tokens"])


def for_single_videos(config: Config) -> tuple[str, str]:
    """The same for commands that run one clip at a time."""
    data = config.data
    return (
        f"one clip of data.num_frames={data.num_frames}, data.img_size={data.img_size}",
        "a model.reduction that keeps fewer tokens, a smaller data.num_frames, or the processor instead of a GPU "
        "(CUDA_VISIBLE_DEVICES=)",
    )
