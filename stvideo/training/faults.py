"""Failures of the machine rather than of the input, in a sentence that says what to do."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from stvideo.core.errors import StvideoError
from stvideo.core.out_of_memory import is_out_of_memory
from stvideo.data.loading.loader import Loader
from stvideo.settings import memory_advice
from stvideo.settings.config import Config

# What torch.distributed says when another process has gone or does not answer.
LOST_PEER = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "pair closure",
    "Socket Timeout",
    "Timed out waiting",
    "NCCL error",
)
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE)


@contextmanager
def explained(config: Config, loader: Loader) -> Iterator[None]:
    """Raise a `StvideoError` for every failure inside that has a sentence; others keep their traceback.

    Args:
        config: names the run folder, and the settings to change when memory is full.
        loader: whose worker may have died, which torch says anywhere in the program.
    """
    try:
        yield
    except (StvideoError, RuntimeError, OSError, MemoryError) as error:
        cause = error.__cause__ if isinstance(error, StvideoError) else error  # of a file that cannot be written
        sentence = explain(cause, config, loader) if cause is not None else None
        if sentence is None:
            raise
        raise sentence from error


def explain(error: BaseException, config: Config, loader: Loader) -> StvideoError | None:
    """Find the sentence for ``error``; None if it has none."""
    run, text = Path(config.output), str(error)
    if is_out_of_memory(error):
        use = memory_advice.for_training(config)
        return StvideoError(f"memory is full (data.batch_size={config.data.batch_size}); use {use}")
    if isinstance(error, OSError) and error.errno in DISK:
        return StvideoError(
            f"{error.filename or run}: {error.strerror}; the checkpoints of {run} are intact: mend that, then start "
            "the same command again"
        )
    if not isinstance(error, RuntimeError):
        return None
    if any(sign in text for sign in LOST_PEER) or isinstance(error, torch.distributed.DistError):
        return StvideoError(
            "another process of this run has gone or does not answer, see its message; "
            f"the same command continues from {run / 'last'}"
        )
    return loader.explain(error)


def record_bad_step(folder: Path, step: int, process: int, loss: float, videos: dict[int, Any]) -> None:
    """Append the videos of a step whose gradient was not finite to bad_steps.jsonl; every process writes its own line.

    Args:
        videos: path by number of each video that this process saw.
    """
    record = {
        "step": step,
        "process": process,
        "loss": str(loss),
        "ids": list(videos),
        "videos": [str(path) for path in videos.values()],
    }
    with (folder / "bad_steps.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def too_many_bad_steps(step: int, count: int, folder: Path) -> StvideoError:
    """Say why the run stops after ``count`` bad steps in a row, and what may help."""
    return StvideoError(
        f"step {step}: the gradient was not finite for {count} steps in a row; lower train.lr, "
        "set train.clip_grad_norm, or use train.precision=bf16. The videos are in bad_steps.jsonl of "
        f"{folder}, the state before the last of these steps in bad_state (resume={folder / 'bad_state'} repeats it)"
    )
