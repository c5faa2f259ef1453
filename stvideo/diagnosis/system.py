"""What the system allows: where can be written, shared memory, open files, loader processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from stvideo.diagnosis.finding import BROKEN, LESS, OK, Finding

GROUP = "system"
MIB, GIB = 2**20, 2**30
SHARED = Path("/dev/shm")  # where torch's loader processes put batches on Linux
ENOUGH_SHARED, LITTLE_SHARED = GIB, 128 * MIB  # a batch of 8 clips of 8 frames is 9 MiB
ENOUGH_ROOM = 2 * GIB
ENOUGH_FILES = 1024


def check_folders() -> list[Finding]:
    """Write access, and room, where results, downloads and temporary files go."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    places = {
        "output": (Path("runs"), BROKEN, "start from another folder, or set output=FOLDER"),
        "cache": (cache, LESS, "set XDG_CACHE_HOME, HF_HOME and TORCH_HOME to a folder that can be written to"),
        "temporary files": (Path(tempfile.gettempdir()), BROKEN, "set TMPDIR to a folder that can be written to"),
    }
    return [check_folder(name, *place) for name, place in places.items()]


def check_folder(name: str, folder: Path, level: str, advice: str) -> Finding:
    """Whether a file can be written in ``folder``, or in the nearest folder above it that exists."""
    existing = next(path for path in [folder.absolute(), *folder.absolute().parents] if path.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=existing) as file:
            file.write(b"x")
        free = shutil.disk_usage(existing).free
    except OSError as error:
        return Finding(GROUP, name, level, f"{folder} cannot be written to ({error.strerror})", advice)
    if free < ENOUGH_ROOM:
        return Finding(GROUP, name, LESS, f"{folder} has {free / GIB:.1f} GiB left", "make room there")
    return Finding(GROUP, name, OK, f"{folder} can be written to, {free / GIB:.0f} GiB free")


def check_shared_memory() -> list[Finding]:
    """Loader processes hand batches over in shared memory; containers often have 64 MiB of it."""
    if not SHARED.is_dir():
        return [Finding(GROUP, "shared memory", OK, "not limited by a file system here")]
    return [judge_shared_memory(shutil.disk_usage(SHARED).free)]


def judge_shared_memory(free: int) -> Finding:
    """What ``free`` bytes mean for training."""
    level = OK if free >= ENOUGH_SHARED else LESS if free >= LITTLE_SHARED else BROKEN
    advice = "" if level == OK else "docker run --shm-size=8g (or --ipc=host), or data.workers=0"
    return Finding(GROUP, "shared memory", level, f"{free / MIB:.0f} MiB free in {SHARED}", advice)


def check_open_files() -> list[Finding]:
    """Each batch on its way between processes takes several file descriptors."""
    try:
        import resource
    except ImportError:  # Windows
        return []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = soft >= ENOUGH_FILES or soft == resource.RLIM_INFINITY
    text = f"limit {soft} (could be {hard})"
    return [Finding(GROUP, "open files", OK if enough else LESS, text, "" if enough else "ulimit -n 65536")]


_HAND_OVER = """
import torch
from torch.utils.data import DataLoader, TensorDataset
if __name__ == "__main__":
    clips = TensorDataset(torch.zeros(8, 3, 8, 224, 224, dtype=torch.uint8))
    (batch,) = next(iter(DataLoader(clips, batch_size=8, num_workers=1)))
    assert batch.shape == (8, 3, 8, 224, 224)
"""


def check_loader_process(timeout: float = 100.0) -> list[Finding]:
    """Whether a batch of the usual size comes back from a loader process."""
    name, advice = "loader process", "more shared memory, or data.workers=0"
    try:
        # A probe is a daemon, which may start programs but no workers of its own.
        done = subprocess.run(
            [sys.executable, "-c", _HAND_OVER], capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        return [Finding(GROUP, name, BROKEN, f"gave no batch in {timeout:g} s", advice)]
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"ended with status {done.returncode}"])[-1]
        return [Finding(GROUP, name, BROKEN, last[:160], advice)]
    return [Finding(GROUP, name, OK, "handed over a batch of 8 clips")]
