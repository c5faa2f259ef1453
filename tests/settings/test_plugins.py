"""Modules outside of the package: imported where somebody names them, and never because a checkpoint does."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from stvideo.core.errors import StvideoError
from stvideo.settings.cli import read_command_line
from stvideo.settings.config import load_config
from stvideo.settings.plugins import import_plugins, take_plugins
from tests.tiny_runs import REPOSITORY, TINY, environment, make_data

METHOD = """
from stvideo.reduction.base import reduction_class, register_reduction

@register_reduction("mine")
class Mine(reduction_class("evit")):
    pass
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder; what is imported from it is forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(folder, name, text):
    (folder / name).write_text(text)


def test_the_file_and_the_command_line_name_plugins(here):
    for number in range(4):
        write(here, f"plugin_{number}.py", "")
    write(here, "c.yaml", "plugins: [plugin_0]\n")
    assert load_config("c.yaml").plugins == ["plugin_0"]
    assert load_config("c.yaml", ["plugins=[plugin_1]"]).plugins == ["plugin_1"]
    assert load_config(None, ["plugins=plugin_2"]).plugins == ["plugin_2"]
    assert take_plugins(["plugins=plugin_3", "lr=1"]) == ["lr=1"]
    assert {f"plugin_{number}" for number in range(4)} <= set(sys.modules)


def test_a_checkpoint_does_not_choose_what_is_imported(here):
    write(here, "of_the_checkpoint.py", "raise AssertionError")
    write(here, "of_the_user.py", "")
    base = {"plugins": ["of_the_checkpoint"]}
    assert load_config(base=base).plugins == ["of_the_checkpoint"]
    assert load_config(base=base, overrides=["plugins=[of_the_user]"]).plugins == ["of_the_user"]
    assert "of_the_checkpoint" not in sys.modules


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent", "plugins: absent: no such module in the current folder or installed"),
        ("absent.sub", "plugins: absent.sub: no such module"),
        ("wrong", "plugins: wrong: cannot be imported: SyntaxError"),
        ("failing", "plugins: failing: cannot be imported: ValueError: first$"),
        ("leaving", "plugins: leaving: cannot be imported: SystemExit"),
        ("lacking", "plugins: lacking: cannot be imported: ModuleNotFoundError: No module named 'absent'"),
        ("folder/mine", "'folder/mine' is not a module's name"),
        ("mine.py", r"'mine.py' is not a module's name; my_methods stands for my_methods\.py"),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_one_line(here, name, message):
    write(here, "wrong.py", "def")
    write(here, "failing.py", "raise ValueError('first\\nsecond')")
    write(here, "leaving.py", "raise SystemExit(3)")
    write(here, "lacking.py", "import absent")
    with pytest.raises(StvideoError, match=message):
        import_plugins([name])


@dataclass
class Settings:
    rounds: int = 3


def test_commands_with_settings_of_their_own_take_plugins(here):
    write(here, "of_a_benchmark.py", "")
    positional, settings, _ = read_command_line(Settings, ["x", "plugins=[of_a_benchmark]"])
    assert positional == ["x"] and settings == Settings() and "of_a_benchmark" in sys.modules


def test_a_method_of_ones_own_is_trained_saved_and_used_again(tmp_path):
    """Two processes train it; its checkpoint names the plugin, and works where the plugin is given."""
    data = make_data(tmp_path / "videos")
    write(tmp_path, "my_methods.py", METHOD)
    write(tmp_path, "c.yaml", "plugins: [my_methods]\n")

    def run(*arguments, processes=1):
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        command = [sys.executable, *(launcher if processes > 1 else []), "-m", *arguments]
        paths = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, env=environment() | {"PYTHONPATH": paths}
        )

    method = "model.reduction.mine={layers: [1], keep_rate: 0.5}"
    settings = [*TINY, *data, method, "output=run", "train.max_steps=1", "data.batch_size=2", "data.workers=1"]
    done = run("stvideo.train", "c.yaml", *settings, processes=2)
    assert done.returncode == 0, done.stderr
    assert load_config(base=json.loads(json.dumps({"plugins": ["my_methods"]}))).plugins == ["my_methods"]
    assert "plugins:\n- my_methods\n" in Path(tmp_path / "run" / "config.yaml").read_text()

    video = str(next((tmp_path / "videos").rglob("*.mp4")))
    refused = run("stvideo.predict", video, "checkpoint=run")
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    assert "unknown reduction 'mine'" in refused.stderr
    assert "the checkpoint was made with plugins, give plugins=[my_methods]" in refused.stderr
    for command in (["stvideo.predict", video, "checkpoint=run"], ["stvideo.convert", "run", "out.safetensors"]):
        done = run(*command, "plugins=[my_methods]")
        assert done.returncode == 0, done.stderr
