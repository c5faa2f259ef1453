"""The command line of the benchmark."""

import subprocess
import sys

import pytest

from stvideo.benchmark import main
from stvideo.benchmarks.data import DataSettings
from stvideo.benchmarks.entrants import FORMS
from stvideo.benchmarks.paper_tables import PaperTableSettings
from stvideo.benchmarks.side_by_side import ComparisonSettings
from stvideo.settings import cli
from stvideo.settings.cli import read_command_line

TINY = "embed_dim=32 depth=4 num_heads=2 img_size=32 num_frames=2 num_classes=3"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["paper-tables", "rows=nonsense"], "no such table"),
        (["paper-tables", "--rows", "evit"], "unknown option '--rows'; settings are written key=value"),
        (["paper-tables", "--optimise"], "unknown option '--optimise'"),
        (["paper-tables", "evit"], "not 'evit'"),
        (["paper-tables", "data.root=x"], "not 'data.root=x'"),
        (["paper-tables", "row=evit"], "did you mean 'rows'"),
        (["deit_tini_patch16_224"], "did you mean 'deit_tiny_patch16_224'?"),
        (["configs/absent.yaml"], "neither a model nor a file"),
        (["deit_tiny_patch16_224", "keep_rate=0.5"], "stands in its quotes"),
        (["deit_tiny_patch16_224", "batch_sizes=0"], "batch_sizes=0: expected 1 or more"),
        (["deit_tiny_patch16_224", "mode=backward"], "choose forward or train"),
        (["deit_tiny_patch16_224", "forms=eager,compield"], "no such form (did you mean 'compiled'?)"),
        (["deit_tiny_patch16_224", "mode=train", "--optimize"], "the form optimized does not train"),
        (["deit_tiny_patch16_224", "forms=onnx", "precision=bf16"], "the form onnx is float32"),
        (["deit_tiny_patch16_224", "rounds=0"], "rounds=0: expected 1 or more"),
        (["deit_tiny_patch16_224", "precision=fp61"], "choose fp32 or bf16"),
        (["deit_tiny_patch16_224", "model.name=x"], "stands in its quotes"),
        (["deit_tiny_patch16_224", "--reference"], "has no form 'textbook'; that is for dense TimeSformers"),
        (["timm:deit_tini_patch16_224"], "has no such model (did you mean 'deit_tiny_patch16_224'?)"),
        (["timm:deit_tiny_patch16_224 evit.keep_rate=0.7"], "takes no reductions; compare it with ours"),
        (["timm:deit_tiny_patch16_224", "num_frames=4"], "num_frames must be 1"),
        (["deit_tiny_patch16_224", "device=abacus"], "no such kind of device"),
        (["deit_tiny_patch16_224 evit.keep_rate"], "cannot read 'evit.keep_rate'"),
        (["deit_tiny_patch16_224", "+evitt"], "cannot read 'evitt' (did you mean 'evit'?)"),
        (["+evit"], "there is none"),
        (["models"], "nothing to compare"),
        ([f"deit_tiny_patch16_224 {TINY} num_classes=0", "mode=train", "batch_sizes=1"], "needs a model with a class"),
    ],
)
def test_mistakes_are_one_line_and_status_2(capsys, arguments, message):
    with pytest.raises(SystemExit) as end:
        cli.run(main, arguments)
    error = capsys.readouterr().err
    assert end.value.code == 2
    assert message in error
    assert error.startswith("stvideo: error: ")
    assert error.count("\n") == 1


def test_as_a_process():
    command = [sys.executable, "-m", "stvideo.benchmark", "paper-tables", "rows=nonsense"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.parametrize("arguments", [["--help"], []])
def test_help_of_the_command(capsys, arguments):
    assert main(arguments) == 0
    assert "paper-tables" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        (["paper-tables", "--help"], PaperTableSettings),
        (["models", "--help"], ComparisonSettings),
        (["data", "--help"], DataSettings),
    ],
)
def test_help_names_every_setting(capsys, arguments, settings):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 0
    shown = capsys.readouterr().out
    for name in settings.__dataclass_fields__:
        assert f"{name}=" in shown or name in ("img_size", "num_classes")
    if settings is ComparisonSettings:
        assert all(f"\n    {form} " in shown for form in FORMS)
    assert "{" not in shown


def test_switches_are_options_too():
    argv = ["x", "batch_sizes=1,4", "--compile", "rounds=3", "y.z=1"]
    positional, settings, rest = read_command_line(ComparisonSettings, argv)
    assert (positional, rest) == (["x"], ["y.z=1"])
    assert (settings.batch_sizes, settings.compile, settings.rounds) == ([1, 4], True, 3)
