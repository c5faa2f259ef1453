"""A long run in small: memory, file handles and threads stay where they are after warm-up."""

import subprocess
from pathlib import Path

import pytest

from tests.tiny_runs import REPOSITORY, TINY, command, config_file, environment, make_data

WARM_UP, STEPS, SAMPLES = 400, 2000, 200  # steps; a sample every 10 of the last 200


def usage(pid):
    """Resident MiB, open files and threads of a process and its children."""
    total = dict(mib=0.0, files=0, threads=0)
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for process in [str(pid), *children]:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
        total["mib"] += int(status["VmRSS"].split()[0]) / 1024
        total["threads"] += int(status["Threads"])
        total["files"] += sum(1 for _ in Path(f"/proc/{process}/fd").iterdir())
    return total


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_two_thousand_steps_leak_nothing(tmp_path):
    data = make_data(tmp_path / "videos")
    settings = [
        *TINY, *data, f"output={tmp_path / 'run'}", "data.workers=2", f"train.max_steps={STEPS}", "train.epochs=1000",
        "train.eval_every_epochs=50", "train.log_every_steps=10", "train.checkpoint_every_steps=100",
    ]  # fmt: skip
    process = subprocess.Popen(
        command("train", config_file(tmp_path), *settings),
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env=environment(),
    )
    measured = {"before": [], "after": []}
    for line in process.stdout:
        if line.startswith("step "):
            step = int(line.split()[1].split("/")[0])
            if WARM_UP - SAMPLES < step <= WARM_UP:
                measured["before"].append(usage(process.pid))
            elif STEPS - 20 - SAMPLES < step <= STEPS - 20:
                measured["after"].append(usage(process.pid))
    assert process.wait(timeout=60) == 0
    # Batches on their way from the workers hold files open for a moment: what stays is the least of several samples.
    before, after = ({key: min(each[key] for each in samples) for key in samples[0]} for samples in measured.values())
    print(f"after warm-up {before}, at the end {after}")
    assert after["mib"] < 1.05 * before["mib"], (before, after)
    assert after["threads"] == before["threads"], (before, after)
    assert after["files"] <= before["files"], (before, after)
