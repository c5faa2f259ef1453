"""Continuing a run: which checkpoint, what has changed since, and putting everything back."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate.utils import broadcast_object_list

from stvideo.core.errors import StvideoError
from stvideo.runtime.processes import refuse_together
from stvideo.runtime.sharding import share_optimizer
from stvideo.training.checkpoint import check_same_model, find_checkpoint, load_state, other_differences
from stvideo.training.optimizer import load_optimizer

if TYPE_CHECKING:
    from stvideo.training.session import Session


def choose_checkpoint(session: Session) -> Path | None:
    """Where to continue from; decided on the first process, for all.

    Raises:
        StvideoError: there is none where `resume` says, or every one is damaged; on all processes alike.
    """
    choice: list[Any] = [None, None]
    if session.accelerator.is_main_process:
        try:
            choice[0] = _find(session)
        except StvideoError as error:
            choice[1] = str(error)
    if session.accelerator.num_processes > 1:
        broadcast_object_list(choice)
    if choice[1] is not None:
        refuse_together(choice[1])
    checkpoint: Path | None = choice[0]
    return checkpoint


def facts(session: Session) -> dict[str, Any]:
    """What a resume compares besides the configuration: it may change, but it should be said."""
    return {
        "processes": session.accelerator.num_processes,
        "global_batch": session.global_batch,
        "videos": len(session.train_set),
        "classes": list(session.train_set.classes),
    }


def load_checkpoint(session: Session, folder: Path) -> list[str]:
    """Put back everything that a checkpoint holds. Returns lines that say where the run goes on and what differs.

    Steps go on counting; where the run stands in its data and its schedules follows from the epoch and from the videos
    seen of it, so that another number of processes or another batch size changes neither.

    Raises:
        StvideoError: it is of another model, other classes, or another optimiser.
    """
    saved = load_state(folder)
    config = session.config
    check_same_model(saved.config, config, folder)
    if saved.facts["classes"] != list(session.train_set.classes):
        raise StvideoError(f"{folder}: this run was trained on other classes, or on the same in another order")
    session.networks.load(saved.weights, saved.average, folder)
    optimizer = share_optimizer(saved.optimizer, session.optimizer)
    load_optimizer(session.optimizer, optimizer, saved.config["train"]["optimizer"], config.train, folder)
    if saved.scaler is not None and session.accelerator.scaler is not None:
        session.accelerator.scaler.load_state_dict(saved.scaler)
    vars(session.progress).update(vars(saved.progress))
    notes = other_differences(saved.config, asdict(config)) + other_differences(saved.facts, facts(session))
    head = f"continuing from {folder} at step {session.progress.step}"
    lines = [head, *(f"  changed since: {note}" for note in notes)]
    session.accelerator.wait_for_everyone()  # the files of this checkpoint may move now
    if session.accelerator.is_main_process:
        lines += [f"  set aside: {path}" for path in session.run.set_aside_after(session.progress.step)]
    return lines


def _find(session: Session) -> Path | None:
    if session.config.resume != "never":
        return find_checkpoint(session.config.resume, session.run)
    aside = session.run.set_aside()
    if aside:
        print(f"resume=never: the earlier run was moved to {aside}", flush=True)
    return None
