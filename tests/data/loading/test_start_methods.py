"""Loader processes that do not fork: they import little, and read what forked ones read."""

import hashlib
import os
import subprocess
import sys

import pytest

from tests.data.tiny_loader import epochs, load
from tests.tiny_runs import REPOSITORY

HEAVY = ("accelerate", "matplotlib", "omegaconf", "timm", "torchvision", "stvideo.models", "stvideo.training")
READ = """
import hashlib, importlib.machinery, multiprocessing, sys
from tests.data.tiny_loader import epochs, load

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[2])
    # As a command that was started by `python -m`: a worker that imported it once more would fail.
    __spec__ = importlib.machinery.ModuleSpec("stvideo.no_such_command", None)
    batches = epochs(load(sys.argv[1], workers=2), 0, 1)
    print(hashlib.sha256(b"".join(batch["video"].numpy().tobytes() for batch in batches)).hexdigest())
"""


def test_a_worker_imports_only_what_reads_clips():
    code = "import sys, stvideo.data.loading.loader; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(HEAVY).isdisjoint(done.stdout.split())


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_workers_that_do_not_fork_read_the_same_and_start_no_command_again(root, tmp_path, method):
    script = tmp_path / "read.py"
    script.write_text(READ)
    command = [sys.executable, script, root, method]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    batches = epochs(load(root), 0, 1)
    expected = hashlib.sha256(b"".join(batch["video"].numpy().tobytes() for batch in batches)).hexdigest()
    assert done.stdout.strip() == expected, done.stderr
