"""The examples of docs/extending.md, run as they are printed: in a module outside of the package, by every command."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import stvideo
from tests.tiny_runs import REPOSITORY, TINY, environment

EXTENDING = (REPOSITORY / "docs" / "extending.md").read_text()


def example(name: str) -> str:
    """Join the Python blocks of the page that open with the comment ``# NAME.py``."""
    blocks = re.findall(r"```python\n(.*?)```", EXTENDING, re.DOTALL)
    found = [block for block in blocks if block.startswith(f"# {name}.py")]
    assert found
    return "\n\n".join(found)


def lines_of(cls: str) -> int:
    """Count the lines of code of the block that defines ``cls``, docstrings and blank lines left out."""
    block = next(block for block in re.findall(r"```python\n(.*?)```", EXTENDING, re.DOTALL) if f"class {cls}" in block)
    bare = re.sub(r'"""(.*?)"""', "", block, flags=re.DOTALL)
    return sum(bool(line.strip()) and not line.startswith("#") for line in bare.splitlines())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("elsewhere")
    for name in ("my_methods", "my_models"):
        (folder / f"{name}.py").write_text(example(name))
    return folder


def command(folder: Path, module: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", f"stvideo.{module}", *arguments],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, f"{module}: {done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stdout


def test_a_keep_or_drop_method_is_short():
    assert lines_of("KeepLargest") <= 30
    assert lines_of("MergePairs") <= 30


METHODS = {"norm": "keep_rate:1.0,0.5", "pairs": "r:0,2"}


@pytest.fixture(scope="module", params=METHODS)
def trained(request, folder, data):
    """A run of two steps of a model of somebody's own with a method of somebody's own."""
    method = request.param
    config = {"plugins": ["my_methods", "my_models"], "model": {"reduction": {method: {"layers": [1, 2]}}}}
    (folder / f"{method}.yaml").write_text(yaml.safe_dump(config))
    tiny = [text for text in TINY if not text.startswith("model.name")]
    overrides = [*tiny, *data, "model.name=registers_tiny_patch16_224", "train.max_steps=2", f"output={method}"]
    command(folder, "train", f"{method}.yaml", *overrides)
    return method


def test_every_command_takes_them_in(folder, trained):
    plugins = "plugins=[my_methods,my_models]"
    sweep = f"sweep={trained}.{METHODS[trained]}"
    command(folder, "evaluate", trained, sweep, plugins, "evaluate.views=1x1")
    points = json.loads((folder / trained / "sweep" / "sweep.json").read_text())["points"]
    assert len({point["gmacs_per_view"] for point in points}) > 1
    assert any(point["is_control"] for point in points)
    video = next((folder.parent).rglob("*.mp4"))
    predicted = command(folder, "predict", str(video), f"checkpoint={trained}", plugins)
    assert "%" in predicted
    command(
        folder, "visualize", str(video), f"checkpoint={trained}", plugins, "output=pictures", "visualize.outputs=[png]"
    )
    assert list((folder / "pictures").glob("*.png"))
    table = command(folder, "benchmark", trained, plugins, "batch_sizes=[1]", "rounds=1")
    assert "GMACs" in table
    command(folder, "convert", trained, f"{trained}.onnx", plugins)
    assert (folder / f"{trained}.onnx").is_file()


def test_a_study_takes_them_in(folder, data):
    tiny = [text for text in TINY if not text.startswith("model.name")]
    settings = dict(text.split("=", 1) for text in [*tiny, *data])
    shared = {key: yaml.safe_load(value) for key, value in settings.items()}
    base = {"plugins": ["my_methods", "my_models"], "model": {"name": "registers_tiny_patch16_224"}}
    (folder / "base.yaml").write_text(yaml.safe_dump(base))
    contestants = {
        "dense": {},
        "norm": {"from": "dense", "model.reduction.norm": {"layers": [1, 2], "keep_rate": 0.5}},
        "pairs": {"from": "dense", "model.reduction.pairs": {"r": 2}},
    }
    study = {"base": "base.yaml", "seeds": [0], "contestants": contestants}
    content = {**shared, "train.max_steps": 2, "evaluate.views": "1x1", "output": "study", "study": study}
    (folder / "study.yaml").write_text(yaml.safe_dump(content))
    assert "pairs" in command(folder, "study", "study.yaml")
    rows = json.loads((folder / "study" / "study.json").read_text())["contestants"]
    costs = {name: row["gmacs_per_view"] for name, row in rows.items()}
    assert costs["norm"] < costs["dense"] > costs["pairs"]


def test_a_checkpoint_names_its_plugins(folder, trained):
    with pytest.raises(stvideo.StvideoError, match=r"plugins=\[my_methods,my_models\]"):
        stvideo.load_model(folder / trained)
