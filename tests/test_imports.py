"""What importing costs: the package is light, prediction needs nothing of training, and reads a checkpoint once."""

import ast
import hashlib
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import stvideo
from tests.painted_videos import painted_frames, write_video
from tests.steered import save_random_model

HEAVY = ("accelerate", "matplotlib", "omegaconf", "sympy", "timm", "torch._dynamo", "torchvision")


def run_python(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_package_waits_with_imports_until_a_name_is_used():
    (modules,) = run_python("import stvideo, sys; print(*sys.modules)")
    assert not {"torch", "numpy", *HEAVY} & set(modules.split())
    (modules,) = run_python("from stvideo import *; import sys; create_model, KeepOrDrop; print(*sys.modules)")
    assert "torch" in modules.split() and not set(HEAVY) & set(modules.split())


def test_every_name_is_there_for_people_and_type_checkers():
    tree = ast.parse(Path(stvideo.__file__).read_text())
    for_checkers = {
        alias.asname: node.module.removeprefix("stvideo.")
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert for_checkers == stvideo._MODULES
    assert set(stvideo.__all__) <= set(dir(stvideo))
    for name in stvideo.__all__:
        assert getattr(stvideo, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'create_modle'"):
        _ = stvideo.create_modle


@pytest.mark.parametrize("first", ["import stvideo; import timm", "import timm; import stvideo"])
def test_timm_knows_our_names_whichever_is_imported_first(first):
    code = f"{first}; model = timm.create_model('timesformer_tiny_patch16_224', num_frames=2); print(model.num_frames)"
    assert run_python(code) == ["2"]


PREDICT = """
import sys, torch
before, opened = set(sys.modules), []
sys.addaudithook(lambda event, values: opened.append(str(values[0])) if event == "open" else None)
import stvideo.predict
assert stvideo.predict.main(sys.argv[1:]) == 0
print(*(set(sys.modules) - before))
print(*opened, sep="|")
"""


def test_prediction_reads_the_weights_once_and_needs_nothing_of_training(tmp_path):
    folder = tmp_path / "run" / "checkpoints" / "step-00000001"
    (folder / "training_state").mkdir(parents=True)
    weights = save_random_model(folder / "model.safetensors")
    torch.save({"optimizer": {}}, folder / "training_state" / "optimizer.pt")
    sums = {"model.safetensors": hashlib.sha256(weights.read_bytes()).hexdigest(), "training_state/optimizer.pt": "0"}
    (folder / "checksums.json").write_text(json.dumps(sums))
    (tmp_path / "run" / "last").symlink_to("checkpoints/step-00000001")
    write_video(tmp_path / "video.mp4", painted_frames(30, 96, 64, (9, 1, 2)))
    *_, modules, opened = run_python(PREDICT, tmp_path / "video.mp4", f"checkpoint={tmp_path / 'run'}")
    inside = [Path(path).name for path in opened.split("|") if str(tmp_path / "run") in path]
    assert sorted(inside) == ["checksums.json", "model.safetensors"]
    for module in modules.split():
        assert not module.startswith(("accelerate", "torch.distributed", "torch._dynamo", "torchvision", "timm"))
        assert not module.startswith("stvideo.training")


@pytest.mark.slow
def test_the_time_of_imports(capsys):
    """Printed, since it depends on the machine: medians of interleaved processes, in units of ``import torch``."""
    lines = (
        "import torch",
        "import stvideo",
        "from stvideo import *",
        "import stvideo.predict",
        "import stvideo.train",
    )
    seconds = {line: [] for line in lines}
    for _ in range(7):
        for line, of_line in seconds.items():
            start = time.perf_counter()
            run_python(line)
            of_line.append(time.perf_counter() - start)
    unit = statistics.median(seconds["import torch"])
    with capsys.disabled():
        for line, of_line in seconds.items():
            print(f"\n{line:<26} {statistics.median(of_line):.2f} s  {statistics.median(of_line) / unit:.2f}", end="")
