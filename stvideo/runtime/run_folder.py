"""The run folder: what it holds, and how it stays readable whatever happens.

RUN/config.yaml  environment.json  log.jsonl  trackers/
RUN/checkpoints/step-00000120/{model.safetensors, checksums.json, training_state/...}
RUN/last, RUN/best -> checkpoints/step-...
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from stvideo.core.errors import StvideoError
from stvideo.core.files import write_atomically
from stvideo.core.versions import versions
from stvideo.settings.config import Config, to_yaml


def keep_as(folder: Path, suffix: str) -> Path:
    """Rename a checkpoint ``step-N`` to ``step-N.suffix``, or ``step-N.2.suffix`` where that is taken, and so on."""
    target, number = folder.with_name(f"{folder.name}.{suffix}"), 1
    while target.exists():
        number += 1
        target = folder.with_name(f"{folder.name}.{number}.{suffix}")
    return folder.rename(target)


class RunFolder:
    """Paths inside ``output`` and the few files that are not checkpoints."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.log = self.path / "log.jsonl"

    def prepare(self) -> None:
        """Create the folder and try to write into it, before anything slow happens.

        Raises:
            StvideoError: the folder cannot be created or written to.
        """
        prepare_output(self.path)
        prepare_output(self.checkpoints)

    def describe(self, config: Config, world_size: int) -> None:
        """Write the resolved configuration, the versions and the machine."""
        write_atomically(self.path / "config.yaml", to_yaml(config))
        write_atomically(self.path / "environment.json", json.dumps(environment(world_size), indent=2) + "\n")

    def set_aside(self) -> Path | None:
        """Move an earlier run's checkpoints and log into ``previous-N``, so that a fresh one loses nothing."""
        if not any(self.checkpoints.glob("step-*")) and not self.log.exists():
            return None
        number = 1 + sum(1 for _ in self.path.glob("previous-*"))
        target = self.path / f"previous-{number}"
        target.mkdir()
        for name in ("checkpoints", "log.jsonl", "config.yaml", "environment.json", "best", "last"):
            if os.path.lexists(self.path / name):
                (self.path / name).rename(target / name)
        self.checkpoints.mkdir()
        return target

    def set_aside_after(self, step: int) -> list[Path]:
        """Rename checkpoints of later steps than the one that a run goes back to, so that they are not continued."""
        moved = []
        for folder in sorted(self.checkpoints.glob("step-*[0-9]")):
            if int(folder.name.removeprefix("step-")) > step:
                if self.target("best") == folder.resolve():
                    (self.path / "best").unlink()
                moved.append(keep_as(folder, "aside"))
        return moved

    def point(self, name: str, checkpoint: Path) -> None:
        """Make ``RUN/name`` a symbolic link to ``checkpoint``; readers see the old or the new one, never none."""
        temporary = self.path / f".{name}.tmp"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(Path("checkpoints") / checkpoint.name)
        temporary.replace(self.path / name)

    def target(self, name: str) -> Path | None:
        """Resolve the checkpoint folder that ``RUN/name`` points to."""
        link = self.path / name
        return link.resolve() if link.is_symlink() and link.exists() else None


def prepare_output(path: Path) -> None:
    """Create a folder and try to write into it.

    Raises:
        StvideoError: it cannot be created or written to.
    """
    probe = path / f".writable-{os.getpid()}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise StvideoError(
            f"output={path}: cannot write there ({error.strerror or error}); choose another with output=FOLDER"
        ) from None


def environment(world_size: int) -> dict[str, Any]:
    """Versions, commit, command and processes of this run."""
    import torch

    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "processes": world_size,
        "versions": versions(),
        "git_commit": _git_commit(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine() + " CPU",
        "threads": torch.get_num_threads(),
    }


def _git_commit() -> str | None:
    """Return the commit of the source tree that this package runs from, if it is one."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
