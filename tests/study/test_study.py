"""Studies through the real command: stopped, killed and continued, with numbers that can be recomputed."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

import stvideo.study
from stvideo.core.errors import StvideoError
from stvideo.evaluation.answers import read_answers
from stvideo.evaluation.paired import paired_difference
from stvideo.study.plan import read_study
from stvideo.study.runs import list_runs
from tests.tiny_runs import PATIENCE, REPOSITORY, TINY, VAL_VIDEOS, environment, read_log

STEPS = 24  # of each run: six epochs of four


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "stvideo.study", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=REPOSITORY,
        env=environment(),
        start_new_session=True,
    )


def wait_until(condition, process):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.02)


def write_study(folder, contestants, **others):
    base = folder / "base.yaml"
    base.write_text("train: {epochs: 6, eval_every_epochs: 6, checkpoint_every_steps: 1}\n")
    path = folder / "study.yaml"
    path.write_text(json.dumps({"study": {"base": str(base), "contestants": contestants, **others}}))
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def arguments(folder, data):
    evit = {"from": "dense", "title": "EViT", "model.reduction": {"evit": {"keep_rate": 0.5, "layers": [0, 1]}}}
    path = write_study(folder, {"dense": {"title": "dense"}, "evit": evit}, seeds=[0, 1])
    settings = [text for text in TINY if not text.startswith("train.epochs")]
    return [
        path,
        f"output={folder / 'runs'}",
        *settings,
        *data,
        "model.args={patch_size: 8, embed_dim: 32, depth: 3, num_heads: 2}",
    ]


@pytest.fixture(scope="module")
def finished(folder, arguments):
    """The study after it was stopped in the midst of its first run and killed in the midst of its second."""
    runs = folder / "runs"
    process = start(*arguments)
    wait_until(lambda: (runs / "dense-seed0" / "last").exists(), process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 143 and "the same command continues this study" in output
    assert "stopped by a signal" in (runs / "dense-seed0" / "train.log").read_text()
    process = start(*arguments)
    wait_until(lambda: (runs / "evit-seed0" / "last").exists(), process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    dense = (runs / "dense-seed0" / "config.yaml").stat().st_mtime
    process = start(*arguments)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output
    assert (runs / "dense-seed0" / "config.yaml").stat().st_mtime == dense  # what is done is not started again
    return runs, output


def test_every_run_is_whole_and_starts_where_it_should(finished):
    runs, output = finished
    for name in ("dense-seed0", "evit-seed0", "dense-seed1", "evit-seed1"):
        steps = [record["step"] for record in read_log(runs / name, "train")]
        assert steps == list(range(1, STEPS + 1)), name
        assert (runs / name / "metrics.json").exists()
    assert "continuing from" in (runs / "dense-seed0" / "train.log").read_text()
    assert f"init={runs / 'dense-seed1'}: " in (runs / "evit-seed1" / "train.log").read_text()
    seeds = [json.loads((runs / f"dense-seed{seed}" / "metrics.json").read_text()) for seed in (0, 1)]
    losses = [[record["loss"] for record in read_log(runs / f"dense-seed{seed}", "train")] for seed in (0, 1)]
    assert losses[0] != losses[1] and seeds[0]["checkpoint"] != seeds[1]["checkpoint"]
    assert "[2/4] evit-seed0: " in output and "left in all" in output


def test_numbers_are_those_of_the_runs(finished):
    runs, output = finished
    result = json.loads((runs / "study.json").read_text())
    hits = {
        name: np.stack([read_answers(runs / f"{name}-seed{seed}").hits() for seed in (0, 1)])
        for name in ("dense", "evit")
    }
    for name, own in hits.items():
        found = result["contestants"][name]
        metrics = json.loads((runs / f"{name}-seed0" / "metrics.json").read_text())
        assert found["top1"] == pytest.approx(100 * own.mean())
        assert found["top1_of_seeds"] == pytest.approx(100 * own.mean(axis=1))
        assert found["top1_low"] <= found["top1"] <= found["top1_high"]
        assert found["gmacs_per_view"] == metrics["gmacs_per_view"]
        assert found["clips_per_second"] > found["training_clips_per_second"] > 0
    (pair,) = result["compared"]
    expected = paired_difference(hits["evit"], hits["dense"])
    assert (pair["a"], pair["b"], pair["difference"]) == ("evit", "dense", pytest.approx(expected.difference))
    assert (pair["low"], pair["high"]) == (expected.low, expected.high)
    assert (result["evaluated"], result["views"], result["seeds"]) == (VAL_VIDEOS, "2x1", [0, 1])
    text = (runs / "study.md").read_text()
    assert "| EViT " in text and "| EViT - dense " in text and "over the seeds 0, 1" in text
    assert text.splitlines()[0] in output and "![" in text
    assert Image.open(runs / "study.png").width > 1500


def test_a_failure_is_named_and_the_others_go_on(finished, arguments, folder, capfd):
    runs, _ = finished
    (folder / "bad.safetensors").write_bytes(b"nothing")
    broken = {"init": str(folder / "bad.safetensors")}
    path = write_study(folder, {"broken": broken, "child": {"from": "broken"}, "dense": {}})
    assert stvideo.study.main([path, *arguments[1:]]) == 1
    captured = capfd.readouterr()
    failed, skipped = captured.err.strip().splitlines()
    assert failed.startswith(f"stvideo: error: {runs / 'broken-seed0'}: ") and "bad.safetensors" in failed
    assert "(exit status 2)" in failed
    assert skipped.endswith(f"not trained, because {runs / 'broken-seed0'} failed")
    assert "| dense " in captured.out
    assert list(json.loads((runs / "study.json").read_text())["contestants"]) == ["dense"]


def test_other_settings_are_refused_or_lead_to_another_evaluation(finished, arguments):
    with pytest.raises(
        StvideoError, match=r"dense-seed0 was trained with train.lr=0.001, and the study now says 0.01;"
    ):
        stvideo.study.main([*arguments, "train.lr=1e-2"])
    path, *overrides = arguments
    for change, jobs in ((), ("train", "evaluate")), (("evaluate.views=1x1",), ("train",)):
        study = read_study(stvideo.study.Path(path), [*overrides, *change])
        run = next(run for run in list_runs(study) if run.contestant.name == "dense")
        run.check_unchanged()
        assert [job for job in ("train", "evaluate") if run.is_done(job)] == list(jobs)


def test_two_studies_in_one_folder(finished, arguments):
    runs, _ = finished
    hold = "import fcntl, sys, time; f = open(sys.argv[1], 'a+b'); fcntl.lockf(f, fcntl.LOCK_EX)"
    hold += f"; print('held', flush=True); time.sleep({PATIENCE})"
    holder = subprocess.Popen([sys.executable, "-c", hold, str(runs / ".lock")], stdout=subprocess.PIPE)
    holder.stdout.readline()
    try:
        with pytest.raises(StvideoError, match="another run is writing there"):
            stvideo.study.main(arguments)
    finally:
        holder.kill()
        holder.wait()
