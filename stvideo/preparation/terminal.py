"""Show people what a data tool does: progress while it runs, tables when it is done."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

_SECONDS_BETWEEN_LINES = 30.0  # of the progress, where it goes to a file


@contextmanager
def progress(total: int, name: str, bad: int = 0) -> Iterator[Callable[[bool], None]]:
    """Show a bar with the time left and the number of bad files; gives the function to call after each file.

    Ctrl-C and SIGTERM end the work with a `KeyboardInterrupt` that says how to go on.
    """
    interval = 0.2 if sys.stderr.isatty() else _SECONDS_BETWEEN_LINES
    bar = tqdm(total=total, desc=name, unit="file", mininterval=interval, maxinterval=max(interval, 10.0))
    bar.set_postfix_str(f"{bad} bad", refresh=False)

    def step(is_bad: bool) -> None:
        nonlocal bad
        bad += is_bad
        bar.set_postfix_str(f"{bad} bad", refresh=False)
        bar.update()

    main = threading.current_thread() is threading.main_thread()  # others get no signals
    before = signal.signal(signal.SIGTERM, signal.default_int_handler) if main else None
    try:
        yield step
    except KeyboardInterrupt:
        done = f"{name} stopped after {bar.n:,} of {total:,} files"
        raise KeyboardInterrupt(f"{done}; the same command goes on there") from None
    finally:
        bar.close()
        if main:
            signal.signal(signal.SIGTERM, before)


def aligned(rows: Sequence[Sequence[Any]], indent: str = "  ", most: int | None = None) -> list[str]:
    """Lay out the first ``most`` rows as lines, numbers on the right of their columns; say how many are left out."""
    cells = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows[:most]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row, texts in zip(rows, cells, strict=False):
        sides = [">" if isinstance(cell, int) else "<" for cell in row]
        padded = [f"{text:{side}{width}}" for text, side, width in zip(texts, sides, widths, strict=True)]
        lines.append(indent + "  ".join(padded).rstrip())
    return lines + ([f"{indent}and {len(rows) - len(cells):,} more"] if len(rows) > len(cells) else [])
