"""Messages for whoever watches a terminal: one channel for warnings, and text that cannot steer the terminal.

Library code calls ``logger.warning``. A command shows each warning as one line on stderr, see `show_warnings`; a
program that uses the library handles the logger ``stvideo`` like any other.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

logger = logging.getLogger("stvideo")

EVERY_PROCESS = {"every_process": True}
"""``logger.warning(text, extra=EVERY_PROCESS)``: shown from every process, for what the first one may not know."""


def show_warnings() -> None:
    """Print what the package logs on stderr, as ``stvideo: warning: TEXT``, from the first process only."""
    if not any(isinstance(handler, _Terminal) for handler in logger.handlers):
        logger.addHandler(_Terminal(logging.WARNING))


def print_line(kind: str, message: str) -> None:
    """Print ``stvideo: KIND: MESSAGE`` to stderr in one line; other processes than the first add their number."""
    rank = os.environ.get("RANK", "0")
    who = "stvideo" if rank == "0" else f"stvideo (process {rank})"
    print(printable(f"{who}: {kind}: {' '.join(message.split())}"), file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """Spell out control characters, so that names from files cannot steer the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def in_one_line(name: str | Path) -> str:
    """Spell out control characters and line ends of a file's name."""
    return printable(str(name)).replace("\n", "\\n")


class _Terminal(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if os.environ.get("RANK", "0") == "0" or getattr(record, "every_process", False):
            print_line(record.levelname.lower(), record.getMessage())
