"""Ctrl-C before a command has begun."""

import os
import signal
import subprocess
import sys

import pytest

from tests.tiny_runs import REPOSITORY, environment


@pytest.mark.parametrize("program", [["-m", "stvideo.train"], [str(REPOSITORY / "data_tools" / "verify.py")]])
def test_ctrl_c_during_imports_is_one_line(tmp_path, program):
    (tmp_path / "omegaconf.py").write_text("import sys, time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    paths = os.pathsep.join([str(tmp_path), str(REPOSITORY)])
    process = subprocess.Popen(
        [sys.executable, *program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment() | {"PYTHONPATH": paths},
    )
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "stvideo: error: interrupted\n")
