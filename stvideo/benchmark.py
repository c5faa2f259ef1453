"""Cost and speed: the papers' tables, models side by side, the data pipeline.

    python -m stvideo.benchmark paper-tables            published figures beside counted and measured ones
    python -m stvideo.benchmark MODEL|CONFIG ...        models side by side on this machine
    python -m stvideo.benchmark data ...                how fast clips can be read, and whether a model waits for them

Each has its own --help; for models: python -m stvideo.benchmark models --help.
"""

from __future__ import annotations

import sys
from pathlib import Path

from stvideo.settings import cli


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print((__doc__ or "").strip())
        return 0
    if arguments[0] == "paper-tables":
        from stvideo.benchmarks import paper_tables

        return paper_tables.main(arguments[1:])
    if arguments[0] == "data":
        from stvideo.benchmarks import data

        return data.main(arguments[1:])
    return compare(arguments[1:] if arguments[0] == "models" else arguments)  # the word may be left out


def compare(arguments: list[str]) -> int:
    """Race models side by side, print the tables and draw them."""
    from stvideo.benchmarks import side_by_side
    from stvideo.drawing.speeds import plot_speeds

    report, settings = side_by_side.run(arguments)
    print(report.text(), end="")
    if settings.output:
        picture = Path(settings.output) / "benchmark.png"
        written = report.write(settings.output, "benchmark")
        plot_speeds(picture, [row for section in report.sections for row in section.rows])
        print("written: " + ", ".join(map(str, [*written, picture])))
    return 0


if __name__ == "__main__":
    cli.run(main)
