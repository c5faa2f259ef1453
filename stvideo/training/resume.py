"""Continuing a run: which checkpoint, what has changed since, and putting everything back."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from stvideo.core.errors import StvideoError
from stvideo.runtime.processes import refuse_together
from stvideo.runtime.run_folder import RunFolder
from stvideo.runtime.sharding import shard_optimizer
from stvideo.settings.config import Config
from stvideo.training.checkpoint import check_same_model, find_checkpoint, load_state, other_differences
from stvideo.training.networks import Networks
from stvideo.training.optimizer import load_optimizer
from stvideo.training.progress import Progress


def choose_checkpoint(resume: str, run: RunFolder, accelerator: Accelerator) -> Path | None:
    """Choose where to continue from, on the first process for all; None for a fresh run.

    Raises:
        StvideoError: there is none where `resume` says, or every one is damaged; on all processes alike.
    """
    choice: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            if resume != "never":
                choice[0] = find_checkpoint(resume, run)
            elif aside := run.set_aside():
                print(f"resume=never: the earlier run was moved to {aside}", flush=True)
        except StvideoError as error:
            choice[1] = str(error)
    if accelerator.num_processes > 1:
        broadcast_object_list(choice)
    if choice[1] is not None:
        refuse_together(choice[1])
    checkpoint: Path | None = choice[0]
    return checkpoint


def restore(
    folder: Path,
    *,
    config: Config,
    run: RunFolder,
    accelerator: Accelerator,
    networks: Networks,
    optimizer: torch.optim.Optimizer,
    facts: dict[str, Any],
) -> tuple[Progress, list[str]]:
    """Put back everything that a checkpoint holds.

    Steps go on counting; where the run is in its data and its schedules follows from the epoch and from the videos seen
    of it, so that another number of processes or another batch size changes neither.

    Args:
        facts: what `TrainingData.facts` says now.

    Returns:
        How far the run is, and lines that say where it goes on and what differs.

    Raises:
        StvideoError: the checkpoint is of another model, other classes, or another optimiser.
    """
    saved = load_state(folder)
    check_same_model(saved.config, config, folder)
    if saved.facts["classes"] != facts["classes"]:
        raise StvideoError(f"{folder}: this run was trained on other classes, or on the same in another order")
    networks.load(saved.weights, saved.average, folder)
    state = shard_optimizer(saved.optimizer, optimizer)
    load_optimizer(optimizer, state, saved.config["train"]["optimizer"], config.train, folder)
    if saved.scaler is not None and accelerator.scaler is not None:
        accelerator.scaler.load_state_dict(saved.scaler)
    notes = other_differences(saved.config, asdict(config)) + other_differences(saved.facts, facts)
    head = f"continuing from {folder} at step {saved.progress.step}"
    lines = [head, *(f"  changed since: {note}" for note in notes)]
    accelerator.wait_for_everyone()  # the files of this checkpoint may move now
    if accelerator.is_main_process:
        lines += [f"  set aside: {path}" for path in run.set_aside_after(saved.progress.step)]
    return saved.progress, lines
