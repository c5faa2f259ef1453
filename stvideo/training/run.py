"""The body of `stvideo.train`: the epochs of a run, with evaluations and checkpoints between them."""

from __future__ import annotations

from stvideo.runtime.lock import RunLock
from stvideo.runtime.processes import start_accelerator
from stvideo.runtime.run_folder import RunFolder
from stvideo.runtime.signals import StopSignal
from stvideo.settings.config import Config
from stvideo.training.checks import check_training
from stvideo.training.data import TrainingData
from stvideo.training.faults import explained
from stvideo.training.session import Session


def train(config: Config) -> int:
    """Train as ``config`` says; returns 0, or 128 + the signal that asked the run to stop (SIGTERM's if none did).

    Raises:
        StvideoError: anything wrong with the configuration, the data or the checkpoints; another run in this folder.
    """
    stop = StopSignal()
    check_training(config)
    run = RunFolder(config.output)
    run.prepare()
    accelerator = start_accelerator(
        precision=config.train.precision,
        output=run.path,
        trackers=config.train.trackers,
        timeout_minutes=config.train.process_timeout_minutes,
    )
    with RunLock(run.path, accelerator), stop:
        data = TrainingData(config, accelerator)
        with explained(config, data.loader), Session(config, run, accelerator, stop, data) as session:
            while not session.is_finished():
                if not session.progress.evaluation_due:
                    train_epoch(session)
                if session.progress.evaluation_due and not session.stopping:
                    session.evaluate()
                session.save()
                if session.stopping:
                    session.say_stopped()
                    return stop.exit_status
            session.summarize()
    return 0


def train_epoch(session: Session) -> None:
    """Train to the end of the epoch, to `max_steps`, or until a signal asks to stop."""
    session.model.train()
    for batches in session.steps():
        session.train_step(batches)
        if session.stopping or session.reached_max_steps():
            break
        if session.wants_checkpoint():
            session.save()
    session.end_epoch()
