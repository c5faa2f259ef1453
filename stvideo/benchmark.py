"""Cost and speed: the papers' tables, models side by side, the data pipeline.

    python -m stvideo.benchmark paper-tables            published figures beside counted and measured ones
    python -m stvideo.benchmark MODEL|CONFIG ...        models side by side on this machine, also from video files
    python -m stvideo.benchmark data ...                how fast clips can be read

Each has its own --help; for models: python -m stvideo.benchmark models --help.
"""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec

from stvideo.core.errors import StvideoError
from stvideo.settings import cli

COMMANDS = {
    "paper-tables": "stvideo.benchmarks.paper_tables",
    "models": "stvideo.benchmarks.compare",  # the word may be left out
    "data": "stvideo.benchmarks.data",
}


def main(argv: list[str] | None = None) -> int:
    """The command. Returns its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print((__doc__ or "").strip())
        return 0
    command = "models"
    if arguments[0] in COMMANDS:
        command = arguments.pop(0)
    if find_spec(COMMANDS[command]) is None:
        raise StvideoError(f"python -m stvideo.benchmark {command}: not in this version")
    return int(importlib.import_module(COMMANDS[command]).main(arguments) or 0)


if __name__ == "__main__":
    cli.run(main)
