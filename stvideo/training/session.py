"""Everything a training run holds, and the verbs that `stvideo.train` is written in."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from types import TracebackType
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from stvideo.core.errors import StvideoError
from stvideo.data.loading.batches import ClipPreparer
from stvideo.data.loading.datasets import build_dataset
from stvideo.data.loading.loader import build_loader
from stvideo.evaluation.video_set import VideoSet
from stvideo.models.base import Backbone
from stvideo.runtime.run_folder import RunFolder
from stvideo.runtime.sharding import gathered, shard_blocks, whole
from stvideo.runtime.signals import StopSignal
from stvideo.settings.config import Config
from stvideo.training.build import Networks, build_networks, checkpoint_metadata
from stvideo.training.checkpoint import Progress, save_checkpoint
from stvideo.training.compiling import compile_model
from stvideo.training.faults import explain, note_bad_step
from stvideo.training.log import Throughput, TrainingLog
from stvideo.training.micro_batches import MicroBatches
from stvideo.training.optimizer import build_optimizer, peak_learning_rate, set_learning_rate
from stvideo.training.resume import choose_checkpoint, facts, load_checkpoint
from stvideo.training.schedule import learning_rate
from stvideo.training.step import Batch, StepResult, seed_step
from stvideo.weights.saving import save_model


class Session:
    """A run in progress: data, networks, optimiser, how far it is, and its log.

    Building one reads the lists and checks them, builds the model and reads the weights to start from, so that
    every mistake in the input shows before the first step.
    """

    def __init__(self, config: Config, run: RunFolder, accelerator: Accelerator, stop: StopSignal) -> None:
        self.config, self.run, self.accelerator, self.stop = config, run, accelerator, stop
        self.progress = Progress()
        self.stopping = self.evaluating = False
        self.metrics: dict[str, float] = {}  # of an evaluation since the last checkpoint
        self.is_best = False
        self.log: Any = None
        self.loader: Any = None
        self.speed = Throughput()

    # ---- building ----

    def _build(self) -> None:
        config = self.config
        self._open_data()
        self.checkpoint = choose_checkpoint(self)
        self.networks: Networks = build_networks(config, self.train_set.classes, fresh=self.checkpoint is None)
        self._prepare()
        accelerator, classes = self.accelerator, self.networks.num_classes
        self.clips = ClipPreparer(config.data, accelerator.device, num_classes=classes, mixing=True)
        self.micro_batches = None
        if config.train.halve_batch_on_oom:
            tell = self._tell_out_of_memory
            self.micro_batches = MicroBatches(accelerator, self.progress, config.data.batch_size, tell)

    def _open_data(self) -> None:
        config = self.config
        self.train_set = build_dataset(config.data, split="train", seed=config.train.seed)
        self.val_set = None
        if config.data.val:
            self.val_set = VideoSet(config, self.accelerator, config.evaluate.during_training)
            if self.val_set.classes != list(self.train_set.classes):
                raise StvideoError(
                    f"data.train has {len(self.train_set.classes)} classes and data.val {len(self.val_set.classes)}, "
                    "or in another order; name them once for both with data.classes"
                )
        self.loader = build_loader(
            self.train_set,
            batch_size=config.data.batch_size,
            workers=config.data.workers,
            seed=config.train.seed,
            rank=self.accelerator.process_index,
            world_size=self.accelerator.num_processes,
            device=self.accelerator.device,
        )
        self.global_batch = config.data.batch_size * self.accelerator.num_processes * config.train.accumulation_steps
        self.videos_per_step = self.global_batch // config.data.clips_per_video
        self.steps_per_epoch = len(self.train_set) // self.videos_per_step
        if self.steps_per_epoch == 0:
            raise StvideoError(
                f"data.train={config.data.train}: {len(self.train_set)} videos do not fill one global batch of "
                f"{self.global_batch} ({self._batch_in_words()}); lower data.batch_size"
            )
        self.peak_lr = peak_learning_rate(config.train, self.global_batch)

    def _prepare(self) -> None:
        model = self.networks.model
        if self.config.train.compile:
            compile_model(model)
        self.summary = self.networks.summary()
        shard_blocks(model, self.accelerator)
        optimizer = build_optimizer(model, self.config.train, self.peak_lr, self.accelerator.device)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.networks.place(self.accelerator)
        self.criterion = self.networks.criterion

    # ---- starting ----

    def resume_or_start(self) -> None:
        """Build everything, load the chosen checkpoint, if there is one, and open the log."""
        self._build()
        notes: list[str] = []
        if self.checkpoint is not None:
            notes = load_checkpoint(self, self.checkpoint)
        if self.accelerator.is_main_process:
            self.run.describe(self.config, self.accelerator.num_processes)
        self.first_step = self.progress.step
        self.total_steps = self.progress.step + self.config.train.epochs * self.steps_per_epoch - self.schedule_step
        if self.config.train.max_steps is not None:
            self.total_steps = min(self.total_steps, self.config.train.max_steps)
        self.log = TrainingLog(
            self.run, self.accelerator, self.config, step=self.progress.step, total_steps=self.total_steps
        )
        self._start_window()
        for line in [*self.networks.notes, *self._introduction(), *notes]:
            self.log.say(line)
        if self.checkpoint is not None:
            self.log.event(self.progress.step, "resumed", checkpoint=str(self.checkpoint), differences=notes)

    def _introduction(self) -> list[str]:
        return [
            f"{self.config.model.name}: {self.summary}",
            f"{len(self.train_set)} training videos, {self.networks.num_classes} classes; global batch "
            f"{self.global_batch} ({self._batch_in_words()}); {self.steps_per_epoch} steps an epoch, "
            f"peak learning rate {self.peak_lr:.3g}{self._scaling_in_words()}",
        ]

    def _scaling_in_words(self) -> str:
        train = self.config.train
        return f" = {train.lr:g} x {self.global_batch} / {train.lr_batch_size} clips" if train.lr_batch_size else ""

    def _batch_in_words(self) -> str:
        accumulation = self.config.train.accumulation_steps
        return (
            f"data.batch_size {self.config.data.batch_size} x {self.accelerator.num_processes} processes "
            f"x train.accumulation_steps {accumulation}"
        )

    # ---- one epoch ----

    @property
    def schedule_step(self) -> int:
        """How many steps of the present size lead here: the place in the data, in which schedules are counted."""
        return self.progress.epoch * self.steps_per_epoch + self.progress.videos // self.videos_per_step

    def global_batches(self) -> Iterator[list[Batch]]:
        """The rest of this epoch: for each optimiser step the batches of this process."""
        self.loader.load_state_dict({"epoch": self.progress.epoch, "offset": self.progress.videos})
        batches = iter(self.loader)
        for _ in range((len(self.train_set) - self.progress.videos) // self.videos_per_step):
            yield list(islice(batches, self.config.train.accumulation_steps))

    def set_schedules(self) -> None:
        """Learning rate and keep rates of the coming step."""
        step = self.schedule_step
        lr = learning_rate(self.config.train, self.peak_lr, step, self.steps_per_epoch)
        set_learning_rate(self.optimizer.param_groups, lr)
        self.networks.set_epoch(step / self.steps_per_epoch)
        self.networks.draw_budgets(self.config.train.seed, self.progress.step)
        self.lr = lr

    def seed(self) -> None:
        """Make every draw of the coming step a function of the seed, the step and the process."""
        seed, step = self.config.train.seed, self.progress.step
        seed_step(seed, step, self.accelerator.process_index)
        self.clips.seed(seed=seed * 1_000_003 + step)

    @contextmanager
    def timer(self) -> Iterator[None]:
        """Times the computing of one step."""
        started = time.perf_counter()
        yield
        if self.accelerator.device.type == "cuda":
            torch.cuda.synchronize(self.accelerator.device)  # the update and the moving average are still running
        self.speed.add(time.perf_counter() - started, self.global_batch)

    def average_weights(self) -> None:
        """Update the moving average, if there is one."""
        if self.networks.average is not None:
            self.networks.average.update(self.networks.model, self.progress.step)

    def count(self, result: StepResult) -> None:
        """Take note of a step that was done, over all processes, and log every few steps."""
        totals = torch.tensor(
            [result.loss, result.correct, result.clips, result.substituted, float(self.stop.reason is not None)],
            dtype=torch.float64 if self.accelerator.device.type == "cpu" else torch.float32,
            device=self.accelerator.device,
        )
        loss, correct, clips, substituted, stops = self.accelerator.reduce(totals, "sum").tolist()
        self.stopping = self.stopping or stops > 0
        progress = self.progress
        progress.step += 1
        progress.videos += self.videos_per_step
        if not result.skipped:
            progress.loss += loss
            progress.correct += correct
            progress.clips += clips
        progress.substituted += substituted
        progress.bad_steps = progress.bad_steps + 1 if result.skipped else 0
        if result.skipped:
            note_bad_step(self, result)
        self.log.advance(progress.step)
        if progress.step % self.config.train.log_every_steps == 0 or progress.step == self.total_steps:
            self._log_window(result)

    def _log_window(self, result: StepResult) -> None:
        elapsed = time.perf_counter() - self.window_started
        waited = self.loader.wait_seconds - self.window_waited
        progress = self.progress
        clips_here = (progress.step - self.window_first_step) * self.global_batch
        values = {
            "loss": progress.loss / progress.clips if progress.clips else math.nan,
            "top1": 100.0 * progress.correct / progress.clips if progress.clips else math.nan,
            "lr": self.lr,
            "grad_norm": result.grad_norm,
            "clips_per_second": self.speed.clips_per_second() or clips_here / elapsed,
            "data_wait_share": waited / elapsed,
            "substituted_clips": progress.substituted,
            **self.networks.reduction_summary(),
        }
        self.log.train(progress.step, self.schedule_step / self.steps_per_epoch, values)
        progress.loss = progress.correct = progress.clips = 0.0
        self._start_window()

    def _start_window(self) -> None:
        self.window_first_step = self.progress.step
        self.window_started, self.window_waited = time.perf_counter(), self.loader.wait_seconds

    def _tell_out_of_memory(self, message: str) -> None:
        self.log.event(self.progress.step, "out of memory", micro_batch=self.progress.micro_batch)
        self.log.say(f"step {self.progress.step}: {message}")

    def reached_max_steps(self) -> bool:
        """Whether `train.max_steps` ends the run here."""
        limit = self.config.train.max_steps
        return limit is not None and self.progress.step >= limit

    def wants_checkpoint(self) -> bool:
        """Whether a checkpoint is due in the middle of an epoch."""
        every = self.config.train.checkpoint_every_steps
        return every is not None and self.progress.step % every == 0

    def end_of_epoch(self) -> None:
        """Move on to the next epoch if this one is complete, and see whether an evaluation is due."""
        progress, config = self.progress, self.config.train
        complete = len(self.train_set) - progress.videos < self.videos_per_step
        if complete:
            progress.epoch, progress.videos, progress.substituted = progress.epoch + 1, 0, 0.0
        ends = progress.epoch >= config.epochs or self.reached_max_steps()
        due = ends or (complete and progress.epoch % config.eval_every_epochs == 0)
        progress.evaluation_due = due and self.val_set is not None

    def is_finished(self) -> bool:
        """Whether nothing is left to train or to evaluate."""
        ends = self.progress.epoch >= self.config.train.epochs or self.reached_max_steps()
        return ends and not self.progress.evaluation_due

    # ---- between epochs ----

    def evaluate(self) -> None:
        """Evaluate on data.val; the first process notes whether this is the best so far."""
        config = self.config
        assert self.val_set is not None
        self.evaluating = True
        evaluated, device = self.networks.evaluated, self.accelerator.device
        with gathered(evaluated, self.accelerator), self.networks.evaluated_on(device):
            outcome = self.val_set.evaluate([evaluated], should_stop=lambda: self.stop.reason is not None)
        self.evaluating = False
        if outcome is None:
            self.stopping = True
            return
        self.progress.evaluation_due = False
        metrics = broadcast_object_list([outcome.predictions[0].metrics() if outcome.predictions else None])[0]
        self.metrics = metrics
        self.is_best = metrics["top1"] > self.progress.best
        self.progress.best = max(self.progress.best, metrics["top1"])
        epoch, videos = (
            self.schedule_step / self.steps_per_epoch,
            self.val_set.dataset.expected - len(outcome.unreadable),
        )
        record = {**metrics, "views": config.evaluate.during_training, "videos": videos}
        self.log.evaluation(self.progress.step, epoch, record)
        scores = f"top-1 {metrics['top1']:.2f} %, top-5 {metrics['top5']:.2f} %"
        self.log.say(
            f"evaluation after {epoch:.2f} epochs: {scores}  ({config.evaluate.during_training} views, "
            f"{videos} of {self.val_set.dataset.listed} videos{', the best so far' if self.is_best else ''})"
        )

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds besides the progress; all processes have to call it."""
        networks, scaler = self.networks, self.accelerator.scaler
        metadata = checkpoint_metadata(self.config, self.train_set.classes)
        metadata |= {"epoch": self.progress.epoch, "step": self.progress.step, "metrics": self.metrics}
        evaluated = whole(networks.evaluated.state_dict())
        return {
            "write_model": lambda path: save_model(path, cast(Backbone, networks.evaluated), metadata, evaluated),
            "weights": whole(networks.model.state_dict()) if networks.average is not None else None,
            "optimizer": whole(self.optimizer.state_dict()),
            "scaler": scaler.state_dict() if scaler is not None else None,
            "facts": facts(self),
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

    def summarize(self) -> None:
        """The last lines of a run."""
        if self.progress.step == self.first_step:
            self.log.say(f"nothing left to do: {self.run.path} is trained to step {self.progress.step}")
            return
        speed = self.speed.clips_per_second()
        self.log.event(self.progress.step, "finished", best_top1=self.progress.best, clips_per_second=speed)
        best = f"best top-1 {self.progress.best:.2f} %" if self.progress.best >= 0 else "trained without an evaluation"
        pace = f", {speed:.1f} training clips/s" if speed else ""
        self.log.say(f"finished: {best}{pace}; checkpoints in {self.run.path}")

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.log is not None:
            self.log.close(together=error is None)
        explained = explain(error, self) if isinstance(error, RuntimeError | OSError | MemoryError) else None
        if explained is not None:
            raise explained from error
