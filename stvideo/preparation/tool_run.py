"""What the data tools show while they run, and how they stop."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from tqdm import tqdm

from stvideo.core.errors import StvideoError
from stvideo.core.messages import logger

_SECONDS_BETWEEN_LINES = 30.0  # of the progress, where it goes to a file


class Progress:
    """A progress bar with the time left and the number of bad files, for work that can be gone on with later.

    SIGTERM ends the work as Ctrl-C does: with `KeyboardInterrupt`, after a line that says how to go on.
    """

    def __init__(self, total: int, name: str, bad: int = 0) -> None:
        self.total, self.name, self.done, self.bad = total, name, 0, bad

    def __enter__(self) -> Progress:
        on_terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=self.total,
            desc=self.name,
            unit="file",
            dynamic_ncols=on_terminal,
            mininterval=0.2 if on_terminal else _SECONDS_BETWEEN_LINES,
            maxinterval=10.0 if on_terminal else _SECONDS_BETWEEN_LINES,
            postfix=f"{self.bad} bad",
        )
        self._before: Any = None
        if threading.current_thread() is threading.main_thread():  # others get no signals
            self._before = signal.signal(signal.SIGTERM, _interrupt)
        return self

    def step(self, bad: bool) -> None:
        """One more file is done."""
        self.done += 1
        if bad:
            self.bad += 1
            self._bar.set_postfix_str(f"{self.bad} bad", refresh=False)
        self._bar.update()

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
        self._bar.close()
        if isinstance(error, KeyboardInterrupt):
            logger.warning(
                f"{self.name} stopped after {self.done:,} of {self.total:,} files; the same command goes on there"
            )


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def check_workers(workers: int, jobs: int) -> int:
    """How many processes to start: as many as said, or one per CPU core, but not more than there are jobs."""
    if workers < 0:
        raise StvideoError(f"workers={workers}: expected 0 (one process per CPU core) or more")
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(workers or available, jobs))


def table(rows: Sequence[Sequence[Any]], indent: str = "  ") -> list[str]:
    """Lines of a table; numbers stand on the right of their columns, and the last column is as long as it is."""
    cells = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row, texts in zip(rows, cells, strict=True):
        padded = [
            text.rjust(width) if isinstance(cell, int | float) else text.ljust(width)
            for cell, text, width in zip(row, texts, widths, strict=True)
        ]
        lines.append(indent + "  ".join(padded).rstrip())
    return lines
