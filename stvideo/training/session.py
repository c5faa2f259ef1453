"""A training run in progress: everything it holds, and the verbs that `stvideo.train` is written in."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from types import TracebackType
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from stvideo.core.out_of_memory import explained
from stvideo.core.seeding import step_seed
from stvideo.core.versions import versions
from stvideo.data.clips.preprocessing import Preprocessing
from stvideo.reduction.budget import draw_budgets
from stvideo.runtime.run_folder import RunFolder
from stvideo.runtime.sharding import gathered, shard_blocks, whole
from stvideo.runtime.signals import StopSignal
from stvideo.settings import memory_advice
from stvideo.settings.config import Config, to_dict
from stvideo.training.checkpoint import save_checkpoint, write_checkpoint
from stvideo.training.compiling import compile_model
from stvideo.training.data import TrainingData
from stvideo.training.faults import record_bad_step, too_many_bad_steps
from stvideo.training.log import Throughput, TrainingLog
from stvideo.training.micro_batches import MicroBatches
from stvideo.training.networks import Networks
from stvideo.training.optimizer import build_optimizer, peak_learning_rate, set_learning_rate
from stvideo.training.progress import Progress, StepResult
from stvideo.training.resume import choose_checkpoint, restore
from stvideo.training.schedule import learning_rate
from stvideo.training.step import Batch, sum_over_processes, take_step
from stvideo.weights.saving import save_model


class Session:
    """A run in progress: networks, optimiser, how far it is, and its log.

    Building one builds the model and reads the weights to start or to go on from, so that every mistake in the input
    shows before the first step.

    Attributes:
        progress: how far the run is.
        stopping: some process was asked to stop.
        log: what the run tells.

    Raises:
        StvideoError: the model cannot be built so, or a checkpoint or weights do not fit.
    """

    def __init__(
        self, config: Config, run: RunFolder, accelerator: Accelerator, stop: StopSignal, data: TrainingData
    ) -> None:
        self.config, self.run, self.accelerator, self.stop, self.data = config, run, accelerator, stop, data
        self.stopping = False
        self.metrics: dict[str, float] = {}  # of an evaluation since the last checkpoint
        self.is_best = False
        self.speed = Throughput()
        self.peak_lr = peak_learning_rate(config.train, data.global_batch)

        checkpoint = choose_checkpoint(config.resume, run, accelerator)
        self.networks = Networks(config, data.classes, fresh=checkpoint is None, first_clips=data.first_clips)
        if config.train.compile:
            compile_model(self.networks.model)
        summary = self.networks.summary(Preprocessing.from_config(config.data).clip_shape)
        shard_blocks(self.networks.model, accelerator)
        optimizer = build_optimizer(
            self.networks.model, config.train, self.peak_lr, accelerator.device, sharded=accelerator.is_fsdp2
        )
        self.model, self.optimizer = accelerator.prepare(self.networks.model, optimizer)
        self.networks.place(accelerator)

        self.progress = Progress()
        notes: list[str] = []
        if checkpoint is not None:
            self.progress, notes = restore(
                checkpoint,
                config=config,
                run=run,
                accelerator=accelerator,
                networks=self.networks,
                optimizer=self.optimizer,
                facts=data.facts(),
            )
        self.micro_batches: MicroBatches | None = None
        if config.train.halve_batch_on_oom:
            size = config.data.batch_size
            self.micro_batches = MicroBatches(accelerator, self.progress, size, self._tell_out_of_memory)
        if accelerator.is_main_process:
            run.describe(config, accelerator.num_processes)
        self.first_step = self.progress.step
        self.total_steps = self.first_step + config.train.epochs * data.steps_per_epoch - self.schedule_step
        if config.train.max_steps is not None:
            self.total_steps = min(self.total_steps, config.train.max_steps)
        self.log = TrainingLog(run, accelerator, config, step=self.first_step, total_steps=self.total_steps)
        self.logged = time.perf_counter(), data.loader.wait_seconds
        for line in [*self.networks.notes, *self._introduction(summary), *notes]:
            self.log.say(line)
        if checkpoint is not None:
            self.log.event(self.first_step, "resumed", checkpoint=str(checkpoint), differences=notes)

    def _introduction(self, summary: str) -> list[str]:
        train, data = self.config.train, self.data
        scaling = f" = {train.lr:g} x {data.global_batch} / {train.lr_batch_size} clips" if train.lr_batch_size else ""
        return [
            f"{self.config.model.name}: {summary}",
            f"{len(data.train_set)} training videos, {len(data.classes)} classes; global batch "
            f"{data.describe_batch()}; {data.steps_per_epoch} steps an epoch, "
            f"peak learning rate {self.peak_lr:.3g}{scaling}",
        ]

    # ---- one epoch ----

    @property
    def schedule_step(self) -> int:
        """How many steps of the present size lead here: the place in the data, in which schedules are counted."""
        return self.progress.epoch * self.data.steps_per_epoch + self.progress.videos // self.data.videos_per_step

    @property
    def epochs(self) -> float:
        """Epochs trained so far."""
        return self.schedule_step / self.data.steps_per_epoch

    def steps(self) -> Iterator[list[Batch]]:
        """Yield the batches of every optimiser step that is left of this epoch."""
        return self.data.steps(self.progress.epoch, self.progress.videos)

    def train_step(self, batches: list[Batch]) -> None:
        """Take one optimiser step, and log every few of them.

        Raises:
            StvideoError: the gradient was not finite for too many steps in a row.
        """
        config, networks = self.config.train, self.networks
        lr = learning_rate(config, self.peak_lr, self.schedule_step, self.data.steps_per_epoch)
        set_learning_rate(self.optimizer.param_groups, lr)
        networks.set_epoch(self.epochs)
        draw_budgets(networks.model, config.seed, self.progress.step)
        started = time.perf_counter()
        result = take_step(
            accelerator=self.accelerator,
            model=networks.model if self.micro_batches else self.model,
            criterion=networks.criterion,
            optimizer=self.optimizer,
            batches=batches,
            prepare=self.data.clips.clip_and_target,
            clip_grad_norm=config.clip_grad_norm,
            seed=self._seed,
            micro_batches=self.micro_batches,
        )
        if networks.average is not None and not result.skipped:
            networks.average.update(networks.model, self.progress.step)
        if self.accelerator.device.type == "cuda":
            torch.cuda.synchronize(self.accelerator.device)  # the update and the moving average are still running
        self.speed.add(time.perf_counter() - started, self.data.global_batch)
        total, stop = sum_over_processes(result, self.stop.reason is not None, self.accelerator)
        self.stopping = self.stopping or stop
        self.progress.add(total, self.data.videos_per_step)
        if result.skipped:
            self._note_bad_step(result)
        self.log.advance(self.progress.step)
        if self.progress.step % config.log_every_steps == 0 or self.progress.step == self.total_steps:
            self._log_averages(lr, result.grad_norm)

    def _seed(self) -> None:
        """Make every draw of the coming step (dropout, drop path, mixing, ...) what it is."""
        seed, step = self.config.train.seed, self.progress.step
        torch.manual_seed(step_seed(seed, step, self.accelerator.process_index))
        self.data.clips.seed(step_seed(seed, step))

    def _log_averages(self, lr: float, grad_norm: float) -> None:
        now, (then, waited) = time.perf_counter(), self.logged
        self.logged = now, self.data.loader.wait_seconds
        values = {
            **self.progress.take_averages(),
            "lr": lr,
            "grad_norm": grad_norm,
            "clips_per_second": self.speed.clips_per_second(),
            "data_wait_share": (self.data.loader.wait_seconds - waited) / (now - then),
            "substituted_clips": self.progress.substituted,
            **self.networks.reduction_summary(),
        }
        self.log.train(self.progress.step, self.epochs, values)

    def _note_bad_step(self, result: StepResult) -> None:
        progress, folder = self.progress, self.run.path
        loss = result.loss / result.clips
        self.log.event(progress.step, "skipped: gradient not finite", loss=loss)
        paths = {video: self.data.train_set.path(video) for video in result.videos}
        record_bad_step(folder, progress.step, self.accelerator.process_index, loss, paths)
        if progress.bad_steps <= self.config.train.max_bad_steps:
            return
        content = self.state()
        if self.accelerator.is_main_process:  # the weights were left alone: continued from here, the step comes again
            videos = progress.videos - self.data.videos_per_step
            before = replace(progress, step=progress.step - 1, videos=videos, bad_steps=0)
            write_checkpoint(folder / "bad_state", progress=before, **content)
        self.accelerator.wait_for_everyone()
        raise too_many_bad_steps(progress.step, progress.bad_steps, folder)

    def _tell_out_of_memory(self, message: str) -> None:
        self.log.event(self.progress.step, "out of memory", micro_batch=self.progress.micro_batch)
        self.log.say(f"step {self.progress.step}: {message}")

    def reached_max_steps(self) -> bool:
        """Tell whether `train.max_steps` ends the run here."""
        limit = self.config.train.max_steps
        return limit is not None and self.progress.step >= limit

    def wants_checkpoint(self) -> bool:
        """Tell whether a checkpoint is due in the middle of an epoch."""
        every = self.config.train.checkpoint_every_steps
        return every is not None and self.progress.step % every == 0

    def end_epoch(self) -> None:
        """Move on to the next epoch if this one is complete, and see whether an evaluation is due."""
        progress, config = self.progress, self.config.train
        complete = len(self.data.train_set) - progress.videos < self.data.videos_per_step
        if complete:
            progress.epoch, progress.videos, progress.substituted = progress.epoch + 1, 0, 0.0
        ends = progress.epoch >= config.epochs or self.reached_max_steps()
        due = ends or (complete and progress.epoch % config.eval_every_epochs == 0)
        progress.evaluation_due = due and self.data.val_set is not None

    def is_finished(self) -> bool:
        """Tell whether nothing is left to train or to evaluate."""
        ends = self.progress.epoch >= self.config.train.epochs or self.reached_max_steps()
        return ends and not self.progress.evaluation_due

    # ---- between epochs ----

    def evaluate(self) -> None:
        """Evaluate on data.val, and note whether this is the best so far."""
        videos, network = self.data.val_set, self.networks.evaluated
        assert videos is not None
        with (
            explained(*memory_advice.for_evaluation(self.config)),
            gathered(network, self.accelerator),
            self.networks.evaluated_on(self.accelerator.device),
        ):
            outcome = videos.evaluate([network], should_stop=lambda: self.stop.reason is not None)
        if outcome is None:
            self.stopping = True
            return
        metrics = broadcast_object_list([outcome.predictions[0].metrics() if outcome.predictions else None])[0]
        self.metrics = metrics
        self.is_best = metrics["top1"] > self.progress.best
        self.progress.best = max(self.progress.best, metrics["top1"])
        self.progress.evaluation_due = False
        views, count = self.config.evaluate.during_training, videos.dataset.expected - len(outcome.unreadable)
        record = {**metrics, "views": views, "videos": count}
        self.log.evaluation(self.progress.step, self.epochs, record)
        self.log.say(
            f"evaluation after {self.epochs:.2f} epochs: top-1 {metrics['top1']:.2f} %, top-5 {metrics['top5']:.2f} %  "
            f"({views} views, {count} of {videos.dataset.listed} videos{', the best so far' if self.is_best else ''})"
        )

    def state(self) -> dict[str, Any]:
        """Collect what a checkpoint holds besides the progress; all processes have to call it."""
        networks, scaler = self.networks, self.accelerator.scaler
        metadata = {
            "classes": self.data.classes,
            "preprocess": Preprocessing.from_config(self.config.data).to_dict(),
            "config": to_dict(self.config),
            "versions": versions(),
            "epoch": self.progress.epoch,
            "step": self.progress.step,
            "metrics": self.metrics,
        }
        evaluated = whole(networks.evaluated.state_dict())
        return {
            "write_model": lambda path: save_model(path, networks.evaluated, metadata, evaluated),
            "weights": whole(networks.model.state_dict()) if networks.average is not None else None,
            "optimizer": whole(self.optimizer.state_dict()),
            "scaler": scaler.state_dict() if scaler is not None else None,
            "facts": self.data.facts(),
            "config": self.config,
        }

    def save(self) -> None:
        """Write a checkpoint; the other processes wait for the first one."""
        content = self.state()
        if self.accelerator.is_main_process:
            keep = self.config.train.keep_checkpoints
            save_checkpoint(self.run, progress=self.progress, keep=keep, is_best=self.is_best, **content)
        self.metrics, self.is_best = {}, False
        self.accelerator.wait_for_everyone()

    def say_stopped(self) -> None:
        """Say why the run ends early."""
        reason = self.stop.reason or "because another process was asked to"
        self.log.event(self.progress.step, f"stopped {reason}")
        self.log.say(f"stopped {reason} with a checkpoint; the same command continues this run")

    def summarize(self) -> None:
        """Say how the run ended."""
        if self.progress.step == self.first_step:
            self.log.say(f"nothing left to do: {self.run.path} is trained to step {self.progress.step}")
            return
        speed = self.speed.clips_per_second()
        self.log.event(self.progress.step, "finished", best_top1=self.progress.best, clips_per_second=speed)
        best = f"best top-1 {self.progress.best:.2f} %" if self.progress.best >= 0 else "trained without an evaluation"
        self.log.say(f"finished: {best}, {speed:.1f} training clips/s; checkpoints in {self.run.path}")

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.log.close(together=error is None)
