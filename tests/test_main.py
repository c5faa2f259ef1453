"""One command for all verbs."""

import subprocess
import sys
from pathlib import Path

import pytest

from stvideo import __main__ as console
from stvideo.core.errors import StvideoError
from tests.painted_videos import painted_frames, write_video
from tests.steered import save_random_model

try:
    import tomllib
except ImportError:  # Python 3.10
    tomllib = None


def test_every_verb_is_a_command_with_a_help_text_that_shows_itself(capsys):
    for verb in console.VERBS:
        try:
            status = console.main([verb, "--help"])
        except SystemExit as ended:
            status = ended.code
        assert not status, verb
        assert verb in capsys.readouterr().out, verb


def test_no_command_module_is_forgotten():
    folder = Path(console.__file__).parent
    commands = {p.stem for p in folder.glob("*.py") if "cli.run(main)" in p.read_text()} - {"__main__"}
    assert commands <= set(console.VERBS)


def test_help_and_version(capsys):
    assert console.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert "stvideo predict video.mp4" in text and "Exit status" in text
    assert console.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("stvideo ")
    assert console.main([]) == 2


def test_unknown_verb():
    with pytest.raises(StvideoError, match=r"unknown verb 'perdict' \(did you mean 'predict'\?\)"):
        console.main(["perdict", "x.mp4"])


def test_a_verb_gets_its_arguments_and_its_status_comes_back(tmp_path, capsys):
    model = save_random_model(tmp_path / "m.safetensors")
    good = write_video(tmp_path / "good.mp4", painted_frames(2, 64, 48, (0, 0, 0)))
    (tmp_path / "bad.mp4").write_bytes(b"x")
    arguments = ["predict", str(good), str(tmp_path / "bad.mp4"), f"checkpoint={model}", "--json"]
    assert console.main(arguments) == 1
    assert '"video"' in capsys.readouterr().out


def test_python_m_stvideo_ends_with_status_2():
    done = subprocess.run([sys.executable, "-m", "stvideo", "paint"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith("stvideo: error: unknown verb 'paint'")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(tomllib is None, reason="needs Python 3.11 to read pyproject.toml")
def test_the_package_installs_it():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    assert project["project"]["scripts"]["stvideo"] == "stvideo.__main__:run"
