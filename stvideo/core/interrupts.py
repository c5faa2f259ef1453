"""End a command in one line if Ctrl-C comes while it still imports what it needs; see `stvideo.settings.cli.run`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType


def is_command() -> bool:
    """Tell whether this process is one of ours: ``python -m stvideo.X``, ``stvideo X`` or ``data_tools/X.py``."""
    program = Path(next((word for word in sys.orig_argv[1:] if not word.startswith("-")), ""))
    return program.name.split(".")[0] == "stvideo" or program.parent.name == "data_tools"


def catch_early() -> None:
    """Until `catch_no_more`, Ctrl-C ends the process at once, with one line and status 130."""
    if is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def catch_no_more() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(number: int, frame: FrameType | None) -> None:
    os.write(2, b"stvideo: error: interrupted\n")
    os._exit(130)
