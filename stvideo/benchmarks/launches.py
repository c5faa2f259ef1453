"""How a training step scales with processes: the same benchmark, started by torchrun once for each number of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stvideo.benchmarks.report import Section
from stvideo.runtime.processes import has_device

LONGEST_LAUNCH = 3600.0  # seconds


def time_launches(arguments: Sequence[str], counts: Sequence[int], threads: int | None) -> Section:
    """A row for each number of processes.

    Args:
        arguments: of this command, without its name.
        counts: numbers of processes, the first of which the others are compared with.
        threads: of each process; None shares the cores out on a CPU.
    """
    rows: list[dict[str, Any]] = []
    for count in counts:
        row = {
            "switch": f"{count} process{'es' if count > 1 else ''}",
            "processes": count,
            **launch(arguments, count, threads),
        }
        first, speed = rows[0].get("clips_per_second") if rows else None, row.get("clips_per_second")
        rows.append(row | {"of_first": speed / first if speed and first else None})
    return Section("launches", "launches of the default step", rows)


def launch(arguments: Sequence[str], count: int, threads: int | None) -> dict[str, Any]:
    """The default's row as ``count`` processes measure it, or why they did not."""
    environment = dict(os.environ)
    if threads or not has_device():
        environment["OMP_NUM_THREADS"] = str(threads or max(1, (os.cpu_count() or 1) // count))
    with tempfile.TemporaryDirectory() as folder:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
        own = ["switches=", "processes=", f"output={folder}"]
        try:
            done = subprocess.run(
                [*launcher, "-m", "stvideo.benchmark", "train", *arguments, *own],
                capture_output=True,
                text=True,
                env=environment,
                timeout=LONGEST_LAUNCH,
            )
        except subprocess.TimeoutExpired:
            return {"failure": f"no result within {LONGEST_LAUNCH / 60:.0f} minutes"}
        result = Path(folder) / "training.json"
        if done.returncode or not result.exists():
            lines = [line for line in done.stderr.splitlines() if "stvideo" in line and "error" in line]
            return {"failure": (lines or done.stderr.strip().splitlines() or ["no reason given"])[-1][:160]}
        row: dict[str, Any] = json.loads(result.read_text())["sections"][0]["rows"][0]
    keys = ("seconds", "clips_per_second", "peak_mib", "held_mib", "rounds", "clips")
    return {key: row[key] for key in keys}
