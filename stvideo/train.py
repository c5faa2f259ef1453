"""Train a video transformer.

    python -m stvideo.train configs/demo.yaml                              one process
    accelerate launch -m stvideo.train configs/k400_stvit.yaml             all GPUs, as `accelerate config` says
    torchrun --nproc_per_node 8 -m stvideo.train configs/k400_stvit.yaml   the same without Accelerate's launcher

Any setting of the file can be changed on the command line, for instance

    data.root=/data/k400 data.batch_size=4 train.lr=1e-4 output=runs/mine
    model.reduction.evit.keep_rate=0.5          options of a token reduction
    init=timm:vit_base_patch16_224.augreg_in21k start from ImageNet weights
    init=runs/dense                             start from the weights of another run
    resume=auto|PATH|never                      continue this run (auto, the default), another one, or start afresh
    plugins=[my_methods]                        import my_methods.py first: reductions and models of your own

The same command started again continues from the last checkpoint. Results go to the folder `output`:
config.yaml, environment.json, log.jsonl, trackers/, checkpoints/, and the links `last` and `best`.
"""

from __future__ import annotations

from stvideo.runtime.lock import RunLock
from stvideo.runtime.processes import start_accelerator
from stvideo.runtime.run_folder import RunFolder
from stvideo.runtime.signals import StopSignal
from stvideo.settings import cli
from stvideo.settings.config import Config, load_config
from stvideo.training.checks import check_training
from stvideo.training.data import TrainingData
from stvideo.training.faults import explained
from stvideo.training.session import Session


def main(argv: list[str] | None = None) -> int:
    """The command. Returns its exit status."""
    positional, overrides = cli.split_arguments(argv, __doc__ or "")
    return train(load_config(cli.one_config(positional, "train"), overrides))


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


if __name__ == "__main__":
    cli.run(main)
