"""What a run tells: ``log.jsonl`` always, Accelerate trackers by name, and a progress bar with the time left."""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
from collections import deque
from datetime import timedelta
from typing import Any, TextIO

from accelerate import Accelerator
from tqdm import tqdm

from stvideo.core.files import write_atomically
from stvideo.core.messages import printable
from stvideo.runtime.run_folder import RunFolder
from stvideo.settings.config import Config, to_dict

WARM_UP_STEPS = 3  # the first steps allocate memory and start workers


class Throughput:
    """Collect how long steps computed; waiting for data is left to the caller to leave out."""

    def __init__(self) -> None:
        self.seconds_per_clip: deque[float] = deque(maxlen=1000)
        self.steps = 0

    def add(self, seconds: float, clips: int) -> None:
        """Count one step of ``clips`` clips that computed for ``seconds``."""
        if self.steps == WARM_UP_STEPS:
            self.seconds_per_clip.clear()
        self.steps += 1
        self.seconds_per_clip.append(seconds / clips)

    def clips_per_second(self) -> float:
        """Return the median over the last thousand steps, without the first ones if there are more; 0 before any."""
        return 1.0 / max(statistics.median(self.seconds_per_clip), 1e-9) if self.seconds_per_clip else 0.0


class TrainingLog:
    """Writes from the first process only; every other process holds a silent one."""

    def __init__(
        self, run: RunFolder, accelerator: Accelerator, config: Config, *, step: int, total_steps: int
    ) -> None:
        self.accelerator = accelerator
        self.active = accelerator.is_main_process
        self.total_steps = total_steps
        self.file: TextIO | None = None
        self.bar: tqdm[Any] | None = None
        self.started, self.first_step = time.monotonic(), step
        if config.train.trackers:
            accelerator.init_trackers("stvideo", config=_flatten(to_dict(config)))
        if self.active:
            forget_after(run, step)
            self.file = run.log.open("a", encoding="utf-8")
            if sys.stderr.isatty():
                self.bar = tqdm(total=total_steps, initial=step, unit="step", dynamic_ncols=True)

    def say(self, message: str) -> None:
        """Format one line for people."""
        if self.active:
            message = printable(message)
            tqdm.write(message) if self.bar is not None else print(message, flush=True)

    def advance(self, step: int) -> None:
        """Advance the progress bar by one optimiser step."""
        if self.bar is not None:
            self.bar.update(step - self.bar.n)

    def train(self, step: int, epoch: float, values: dict[str, float]) -> None:
        """Record the averages over the last steps."""
        self._write({"kind": "train", "step": step, "epoch": round(epoch, 4), **values}, step)
        shown = {
            "loss": f"{values['loss']:.3f}",
            "lr": f"{values['lr']:.1e}",
            "clips/s": f"{values['clips_per_second']:.3g}",
            "waiting": f"{values['data_wait_share']:.0%}",
        }
        if self.bar is not None:
            self.bar.set_postfix(shown)
        elif self.active:
            left = (time.monotonic() - self.started) / max(1, step - self.first_step) * (self.total_steps - step)
            text = "  ".join(f"{name} {value}" for name, value in shown.items())
            print(
                f"step {step}/{self.total_steps}  epoch {epoch:.2f}  {text}  left {timedelta(seconds=int(left))}",
                flush=True,
            )

    def evaluation(self, step: int, epoch: float, values: dict[str, Any]) -> None:
        """Record an evaluation."""
        self._write({"kind": "evaluation", "step": step, "epoch": round(epoch, 4), **values}, step)

    def event(self, step: int, what: str, **values: Any) -> None:
        """Record something that happened: a resume, a skipped step, a signal."""
        self._write({"kind": "event", "step": step, "event": what, **values}, step)

    def close(self, together: bool = True) -> None:
        """Flush and close everything, and with all processes ``together`` their group.

        A process that ends alone must leave the group as it is: closing it waits for the others under NCCL, and they
        for this one, so that its message would not be seen.
        """
        if self.bar is not None:
            self.bar.close()
        if self.file is not None:
            self.file.close()
        if together:
            self.accelerator.end_training()
        else:
            for tracker in self.accelerator.trackers:
                tracker.finish()

    def _write(self, record: dict[str, Any], step: int) -> None:
        if self.file is not None:
            self.file.write(json.dumps({k: _finite(v) for k, v in record.items()}) + "\n")
            self.file.flush()
        kind = record["kind"]
        numbers = {f"{kind}/{k}": v for k, v in record.items() if isinstance(v, float) and k != "epoch"}
        if numbers and kind != "event":
            self.accelerator.log(numbers, step=step)


def forget_after(run: RunFolder, step: int) -> None:
    """Drop the log lines written after ``step``: a resumed run writes them again. A torn last line goes too."""
    if not run.log.exists():
        return
    kept = []
    for line in run.log.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(record, dict) and record.get("step", 0) <= step:
            kept.append(line + "\n")
    write_atomically(run.log, "".join(kept))


def _flatten(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value if isinstance(value, int | float | str | bool) else json.dumps(value)
    return flat


def _finite(value: Any) -> Any:
    """JSON has no NaN: a number that is not finite is written as text."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
