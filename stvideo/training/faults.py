"""Failures of the machine rather than of the input, in a sentence that says what to do."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from stvideo.core.errors import StvideoError
from stvideo.core.out_of_memory import is_out_of_memory
from stvideo.settings import memory_advice
from stvideo.training.checkpoint import write_checkpoint

if TYPE_CHECKING:
    from stvideo.training.session import Session
    from stvideo.training.step import StepResult

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


def explain(error: BaseException, session: Session) -> StvideoError | None:
    """The sentence for an error that has one, else None and the traceback is shown."""
    run, text = session.run.path, str(error)
    if is_out_of_memory(error):
        doing, use = f"data.batch_size={session.config.data.batch_size}", memory_advice.for_training(session.config)
        if session.evaluating:
            doing, use = memory_advice.for_evaluation(session.config)
        return StvideoError(f"memory is full ({doing}); use {use}")
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
    return session.loader.explain(error) if session.loader is not None else None


def note_bad_step(session: Session, result: StepResult) -> None:
    """Write down the videos of a step whose gradient was not finite; stop when that is too often to be chance.

    Raises:
        StvideoError: more than `train.max_bad_steps` in a row.
    """
    step, loss, folder = session.progress.step, result.loss / result.clips, session.run.path
    session.log.event(step, "skipped: gradient not finite", loss=loss)
    record = {
        "step": step,
        "process": session.accelerator.process_index,
        "loss": str(loss),
        "ids": result.videos,
        "videos": [str(session.train_set.path(video)) for video in result.videos],
    }
    with (folder / "bad_steps.jsonl").open("a", encoding="utf-8") as file:  # every process writes its own line
        file.write(json.dumps(record) + "\n")
    if session.progress.bad_steps <= session.config.train.max_bad_steps:
        return
    content = session.state()
    if session.accelerator.is_main_process:  # the weights were left alone: continued from here, the step comes again
        before = replace(
            session.progress, step=step - 1, videos=session.progress.videos - session.videos_per_step, bad_steps=0
        )
        write_checkpoint(folder / "bad_state", progress=before, **content)
    session.accelerator.wait_for_everyone()
    raise StvideoError(
        f"step {step}: the gradient was not finite for {session.progress.bad_steps} steps in a row; lower train.lr, "
        "set train.clip_grad_norm, or use train.precision=bf16. The videos are in bad_steps.jsonl of "
        f"{folder}, the state before the last of these steps in bad_state (resume={folder / 'bad_state'} repeats it)"
    )
