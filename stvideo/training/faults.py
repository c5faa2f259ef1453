"""Failures of the machine rather than of the input, in a sentence that says what to do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import torch

from stvideo.errors import StvideoError

if TYPE_CHECKING:
    from stvideo.training.session import Session
    from stvideo.training.step import StepResult

# What torch.distributed says when another process has gone or does not answer.
LOST_PEER = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Socket Timeout",
    "Timed out waiting",
    "NCCL error",
)


def explain(error: RuntimeError, session: Session) -> StvideoError | None:
    """The sentence for an error that has one, else None and the traceback is shown."""
    if isinstance(error, torch.OutOfMemoryError):
        data, train = session.config.data, session.config.train
        return StvideoError(
            f"the GPU's memory is full at data.batch_size={data.batch_size}; the same training with less memory: "
            f"data.batch_size={max(1, data.batch_size // 2)} train.accumulation_steps={2 * train.accumulation_steps}, "
            "or model.grad_checkpointing=true, or train.precision=bf16"
        )
    if any(sign in str(error) for sign in LOST_PEER):
        return StvideoError(
            f"another process of this run has gone or does not answer, see its message; "
            f"the same command continues from {session.run.path / 'last'}"
        )
    return session.loader.explain(error)


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
        "videos": [str(session.train_set.path(video)) for video in result.videos],
    }
    with (folder / "bad_steps.jsonl").open("a", encoding="utf-8") as file:  # every process writes its own line
        file.write(json.dumps(record) + "\n")
    if session.bad_steps <= session.config.train.max_bad_steps:
        return
    if session.accelerator.is_main_process:
        session.networks.write(folder / "bad_state.safetensors", {"step": step})
    raise StvideoError(
        f"step {step}: the gradient was not finite for {session.bad_steps} steps in a row; lower train.lr, set "
        "train.clip_grad_norm, or use train.precision=bf16. The videos are in bad_steps.jsonl and the weights in "
        f"bad_state.safetensors of {folder}"
    )
