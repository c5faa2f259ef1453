"""The command line of the data tools: ``key=value``."""

import importlib

import pytest

from data_tools import kinetics, splits
from stvideo.core.errors import StvideoError
from stvideo.settings.cli import read_command_line

TOOLS = ("kinetics", "ssv2", "splits", "verify", "resize", "motion")


@pytest.mark.parametrize(
    "argv",
    [
        ["a.csv", "root=/data/k=4", "output=out", "untrimmed=true", "b.csv"],
        ["--untrimmed", "a.csv", "root=/data/k=4", "b.csv", "output=out"],
    ],
)
def test_every_spelling_says_the_same(argv):
    wanted = kinetics.KineticsSettings(root="/data/k=4", output="out", untrimmed=True)
    assert read_command_line(kinetics.KineticsSettings, argv, "") == (["a.csv", "b.csv"], wanted, [])


def test_keys_of_a_configuration():
    argv = ["val_share=0.25", "x.yaml", "data.root=/data"]
    positional, settings, overrides = read_command_line(splits.SplitSettings, argv, "")
    assert (positional, settings.val_share, overrides) == (["x.yaml"], 0.25, ["data.root=/data"])


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("workesr=x", "unknown key 'workesr'"),
        ("overwite=x", "unknown key 'overwite'"),
        ("--root=x", "unknown option '--root=x'.*settings are written key=value"),
    ],
)
def test_the_nearest_key_is_suggested(tool, argument, message):
    with pytest.raises(StvideoError, match=message):
        importlib.import_module(f"data_tools.{tool}").main(["annotations", argument])


@pytest.mark.parametrize("tool", TOOLS)
def test_help_shows_one_form(tool, capsys):
    with pytest.raises(SystemExit) as stopped:
        importlib.import_module(f"data_tools.{tool}").main(["--help"])
    told = capsys.readouterr().out
    assert stopped.value.code == 0
    assert "overwrite=true" in told or "workers=N" in told
    assert "--" not in told


@pytest.mark.parametrize(
    ("tool", "argv", "message"),
    [
        ("kinetics", ["root=x"], "name a file of official annotations"),
        ("kinetics", ["x", "data.root=y"], r"data\.root=y is not a file"),
        ("ssv2", [], "one folder of annotations is expected"),
        ("splits", ["a", "b"], "one folder of split files is expected"),
        ("motion", [], "one folder to write to is expected"),
        ("kinetics", [""], "name a file of official annotations"),
        ("ssv2", [""], "one folder of annotations is expected"),
        ("splits", [""], "one folder of split files is expected"),
        ("verify", [""], "name a list file, a folder"),
        ("resize", ["", "output=x"], "name a list file, a folder"),
        ("splits", [], "root=FOLDER is missing"),
        ("splits", ["root=x", "val_share=much"], "val_share: Value 'much'"),
        ("splits", ["root=x", "overwrite=perhaps"], "overwrite: Value 'perhaps'"),
    ],
)
def test_what_is_missing_or_of_the_wrong_kind_is_named(tool, argv, message):
    with pytest.raises(StvideoError, match=message):
        importlib.import_module(f"data_tools.{tool}").main(argv)
