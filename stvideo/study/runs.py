"""The runs of a study: ordinary training and evaluation commands, one after the other, that survive being killed."""

from __future__ import annotations

import ctypes
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from stvideo.core.errors import StvideoError
from stvideo.core.messages import printable
from stvideo.data.clips.protocols import find_protocol
from stvideo.runtime.signals import StopSignal
from stvideo.settings.config import load_config, to_dict
from stvideo.study.plan import Contestant, Study

POLL_SECONDS = 0.5
SET_DEATH_SIGNAL = 1  # of prctl, Linux
MAY_CHANGE = {  # from one start of a study to the next, because they do not decide what is learned
    "data.root", "data.workers", "data.decoder", "data.timeout", "train.trackers", "train.log_every_steps",
    "train.keep_checkpoints", "train.checkpoint_every_steps", "train.process_timeout_minutes", "train.seed",
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One contestant with one seed, its run folder, and the folder of the run that it starts from, if any."""

    contestant: Contestant
    seed: int
    folder: Path
    parent: Path | None

    def arguments(self, job: str, base: str) -> list[str]:
        """Write the command line that trains it (``job`` "train") or evaluates it ("evaluate")."""
        overrides = self.contestant.overrides
        if job == "evaluate":  # the checkpoint knows its model
            kept = [text for text in overrides if not text.startswith(("model.", "init="))]
            return ["-m", "stvideo.evaluate", base, str(self.folder), *kept]
        start = [f"init={self.parent}"] if self.parent is not None else []
        own = [f"train.seed={self.seed}", f"output={self.folder}"]
        return ["-m", "stvideo.train", base, *overrides, *start, *own]

    def training(self) -> tuple[float, bool]:
        """Read from its log how many epochs are trained, and whether training came to its end."""
        epochs, finished = 0.0, False
        with suppress(OSError, ValueError), (self.folder / "log.jsonl").open(encoding="utf-8") as log:
            for line in log:
                record = json.loads(line)  # ValueError: a line that is just being written
                epochs, finished = record.get("epoch", epochs), finished or record.get("event") == "finished"
        return float(self.contestant.config.train.epochs if finished else epochs), finished

    def is_done(self, job: str) -> bool:
        """Tell whether ``job`` came to its end, and for an evaluation whether it is one of these weights and views."""
        if job == "train":
            return self.training()[1]
        metrics, weights = self.folder / "metrics.json", self.folder / "best" / "model.safetensors"
        try:
            found = json.loads(metrics.read_text(encoding="utf-8"))
            is_newer = metrics.stat().st_mtime >= weights.stat().st_mtime
        except (OSError, ValueError):
            return False
        evaluate = self.contestant.config.evaluate
        wanted = (find_protocol(evaluate.views).name, f"{evaluate.average}, per video")
        return is_newer and wanted == (found.get("protocol"), found.get("averaging"))

    def check_unchanged(self) -> None:
        """Refuse to go on with a run that was started with other settings; raises `StvideoError`."""
        if not (self.folder / "config.yaml").exists():
            return
        saved, wanted = to_dict(load_config(self.folder / "config.yaml")), to_dict(self.contestant.config)
        for section in ("model", "data", "train"):
            for key, now in wanted[section].items():
                then, name = saved[section][key], f"{section}.{key}"
                if then != now and name not in MAY_CHANGE:
                    raise StvideoError(
                        f"{self.folder} was trained with {name}={then}, and the study now says {now}; delete that "
                        "folder to train it again, or choose another one with output=DIR"
                    )


def list_runs(study: Study) -> list[Run]:
    """List the runs in the order of work: all contestants with the first seed, then with the next."""
    return [
        Run(c, seed, study.folder_of(c.name, seed), study.folder_of(c.parent, seed) if c.parent else None)
        for seed in study.seeds
        for c in study.contestants
    ]


def work_off(study: Study, runs: Sequence[Run], stop: StopSignal) -> dict[Path, str]:
    """Train and evaluate every run that is not done yet; one that fails does not keep the others from it.

    Returns:
        The reason by the run folder of each run that failed. Incomplete once ``stop`` has a reason.
    """
    progress = Progress(runs)
    failures: dict[Path, str] = {}
    fresh: set[Path] = set()  # trained by this command
    for run in runs:
        if run.parent in failures:
            failures[run.folder] = f"not trained, because {run.parent} failed"
        elif run.parent in fresh and (run.folder / "log.jsonl").exists():
            failures[run.folder] = f"started from earlier weights of {run.parent}; delete it to train it again"
        for job in ("train", "evaluate"):
            if run.folder in failures or run.is_done(job):
                continue
            status = _run(run, job, [*study.launch, *run.arguments(job, study.base)], progress, stop)
            if stop.reason is not None:
                return failures
            if status != 0:
                failures[run.folder] = f"{_last_line(run.folder / f'{job}.log')} (exit status {status})"
            elif job == "train":
                fresh.add(run.folder)
    progress.close()
    return failures


class Progress:
    """A line about the whole study, with the time left, judged by the epochs that are still to be trained."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs, self.started = list(runs), time.monotonic()
        self.epochs = {run.folder: run.training()[0] for run in runs}
        self.at_start, self.total = sum(self.epochs.values()), sum(run.contestant.config.train.epochs for run in runs)
        self.on_terminal = sys.stdout.isatty()
        self.shown: tuple[Path, str] | None = None

    def show(self, run: Run, job: str) -> None:
        """Print where the study is: again and again on a terminal, elsewhere once for each command."""
        if not self.on_terminal and self.shown == (run.folder, job):
            return
        self.shown, self.epochs[run.folder] = (run.folder, job), run.training()[0]
        done, left = sum(self.epochs.values()), "an unknown time"
        if done > self.at_start:
            seconds = (time.monotonic() - self.started) / (done - self.at_start) * (self.total - done)
            left = tqdm.format_interval(seconds)
        doing = f"epoch {self.epochs[run.folder]:.1f} of {run.contestant.config.train.epochs}"
        place = f"[{self.runs.index(run) + 1}/{len(self.runs)}] {run.folder.name}"
        line = f"{place}: {doing if job == 'train' else 'evaluating'}, {left} left in all"
        print(f"\r{line}\x1b[K" if self.on_terminal else line, end="" if self.on_terminal else "\n", flush=True)

    def close(self) -> None:
        """End the line on a terminal."""
        if self.on_terminal and self.shown:
            print(flush=True)


def _run(run: Run, job: str, command: list[str], progress: Progress, stop: StopSignal) -> int:
    """Run a command with its output in RUN/JOB.log, pass a signal to stop on to it, and return its exit status."""
    run.folder.mkdir(parents=True, exist_ok=True)
    with (run.folder / f"{job}.log").open("ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=_end_with_parent
        )
        try:
            while process.poll() is None and stop.reason is None:
                progress.show(run, job)
                time.sleep(POLL_SECONDS)
        finally:
            process.terminate()  # it saves and ends, unless it has ended
            status = process.wait()
    return status


def _end_with_parent() -> None:
    """Let Linux send SIGTERM to a command whose study is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_DEATH_SIGNAL, signal.SIGTERM)


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return printable(lines[-1]).removeprefix("stvideo: error: ") if lines else "it printed nothing"
