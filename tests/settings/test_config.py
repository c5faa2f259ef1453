"""Configuration: layering, types, and one clear line for every mistake."""

from pathlib import Path

import pytest

from stvideo import StvideoError
from stvideo.settings.config import Config, load_config, to_yaml


def test_defaults_file_and_overrides_in_that_order(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("train:\n  lr: 5e-4\n  epochs: 3\nmodel:\n  reduction: {stgm: {grid: [null, 4, 4]}}\n")
    config = load_config(path, ["train.epochs=4", "model.reduction.evit.keep_rate=0.5", "data.train=my list.txt"])
    assert (config.train.lr, config.train.epochs, config.train.seed) == (5e-4, 4, 0)
    assert config.model.reduction == {"stgm": {"grid": [None, 4, 4]}, "evit": {"keep_rate": 0.5}}
    assert config.data.train == "my list.txt"


def test_lists_without_brackets_and_texts_as_they_are_written():
    config = load_config(None, ["data.short_side=256,320", "train.freeze=head", "output=007", "data.root=a=b"])
    assert (config.data.short_side, config.train.freeze) == ([256, 320], ["head"])
    assert (config.output, config.data.root) == ("007", "a=b")


def test_a_mapping_on_the_command_line_replaces_the_one_in_the_file(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("model:\n  reduction: {stgm: {grid: [null, 4, 4]}}\n")
    assert load_config(path, ["model.reduction={random: {keep_rate: 0.5}}"]).model.reduction == {
        "random": {"keep_rate": 0.5}
    }
    assert load_config(path, ["model.reduction=evit"]).model.reduction == {"evit": {}}
    assert load_config(path, ["model.reduction=null"]).model.reduction is None
    path.write_text("model:\n  reduction: evit\n")
    assert load_config(path).model.reduction == {"evit": {}}


def test_what_is_written_reads_back_the_same(tmp_path):
    config = load_config(None, ["model.reduction.evit.layers=[1, 2]", "train.lr=1e-3", "output=runs/a b"])
    (tmp_path / "c.yaml").write_text(to_yaml(config))
    assert load_config(tmp_path / "c.yaml") == config
    assert load_config() == Config()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.lrr=3"], "unknown key 'train.lrr' .did you mean 'train.lr'"),
        (["lr=3"], "did you mean 'train.lr'"),
        (["trian.lr=3"], "did you mean 'train'"),
        (["train.lr=fast"], "train.lr: Value 'fast'"),
        (["train.epochs=1.5"], "train.epochs"),
        (["model.reduction=3"], "model.reduction"),
        (["train=3"], "'train' is a section"),
        (["train.lr"], "not of the form key=value"),
        (["data.short_side=wide"], "data.short_side"),
        (["output=null"], "output"),
        (["data.train=[1"], "cannot read"),
    ],
)
def test_mistakes_on_the_command_line_are_one_clear_line(overrides, message):
    with pytest.raises(StvideoError, match=message) as caught:
        load_config(None, overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train:\n  lrr: 3\n", "unknown key 'train.lrr'"),
        ("train: [\n", "not a readable YAML file"),
        ("- 1\n", "expected 'key: value'"),
        ("train:\n  lr: !!python/object/apply:os.system ['true']\n", "not a readable YAML file"),
    ],
)
def test_mistakes_in_a_file_name_the_file(tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(StvideoError, match=message) as caught:
        load_config(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_one_clear_line():
    with pytest.raises(StvideoError, match="no such configuration file"):
        load_config(Path("nowhere.yaml"))
