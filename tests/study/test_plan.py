"""Study files: what they stand for, and one clear line for each mistake before anything trains."""

import json

import pytest

from stvideo.core.errors import StvideoError
from stvideo.study.plan import as_overrides, read_study
from stvideo.study.runs import list_runs
from tests.tiny_runs import REPOSITORY

BASE = """
model: {name: timesformer_tiny_patch16_224, args: {embed_dim: 32, depth: 3, num_heads: 2}}
data: {root: /data, train: train, val: val, num_frames: 4, img_size: 32, short_side: [32, 40]}
train: {trackers: []}
"""


@pytest.fixture
def write(tmp_path):
    (tmp_path / "base.yaml").write_text(BASE)

    def write(study, **others):
        path = tmp_path / "keep.yaml"
        study = {"base": "base.yaml", **study} if isinstance(study, dict) else study
        path.write_text(json.dumps({"study": study, **others}))  # JSON is YAML
        return path

    return write


EVIT = {"from": "dense", "title": "EViT", "train.epochs": 2, "model": {"reduction": {"evit": {"keep_rate": 0.5}}}}


def test_contestants_seeds_and_comparisons(write):
    path = write({"contestants": {"evit": EVIT, "dense": None}, "seeds": [3, 1]}, data={"batch_size": 2})
    study = read_study(path, ["output=elsewhere", "train.lr=1e-4"])
    dense, evit = study.contestants  # the parent first
    assert (dense.name, dense.title, dense.parent) == ("dense", "dense", None)
    assert (evit.title, evit.parent) == ("EViT", "dense")
    assert evit.config.train.epochs == 2 and evit.config.model.reduction == {"evit": {"keep_rate": 0.5}}
    assert {c.config.data.batch_size for c in study.contestants} == {2}
    assert {c.config.train.lr for c in study.contestants} == {1e-4}
    assert study.compare == [("dense", "evit")]  # against the first of the file
    runs = list_runs(study)
    assert [run.folder.as_posix() for run in runs] == [
        "elsewhere/dense-seed3", "elsewhere/evit-seed3", "elsewhere/dense-seed1", "elsewhere/evit-seed1",
    ]  # fmt: skip
    command = runs[3].arguments("train", study.base)
    assert command[:2] == ["-m", "stvideo.train"] and command[2].endswith("base.yaml")
    assert {"init=elsewhere/dense-seed1", "train.seed=1", "output=elsewhere/evit-seed1"} <= set(command)
    command = runs[3].arguments("evaluate", study.base)
    assert "elsewhere/evit-seed1" in command and not any("model." in word for word in command)
    assert read_study(path).output.as_posix() == "runs/keep"
    assert read_study(write({"contestants": {"a": {}}}, output="x")).output.as_posix() == "x"
    assert read_study(write({"contestants": {"a": {}}, "launch": "accelerate launch"})).launch == [
        "accelerate",
        "launch",
    ]


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "configs" / "studies").glob("*.yaml")), ids=lambda path: path.stem
)
def test_the_studies_in_the_repository_can_be_read(path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    assert read_study(path).compare
    assert path.read_text().startswith(f"# python -m stvideo.study configs/studies/{path.name}")


def test_settings_are_written_as_on_a_command_line():
    settings = {"data": {"mean": [0.1, 0.2, 0.3]}, "train.lr": 1e-05, "init": None, "model.reduction": {"evit": {}}}
    assert as_overrides(settings) == [
        "data.mean=[0.1, 0.2, 0.3]", "train.lr=1e-05", "init=null", 'model.reduction={"evit": {}}',
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("study", "message"),
    [
        (None, "not a study file"),
        ({}, "expected at least one NAME"),
        ({"contestants": {}}, "expected at least one NAME"),
        ({"contestants": ["dense"]}, "expected at least one NAME"),
        ({"contestant": {"a": {}}}, r"unknown key 'contestant' \(did you mean 'contestants'"),
        ({"contestants": {"a": 3}}, "a: expected settings"),
        ({"contestants": {"a/b": {}}}, "contestant 'a/b': a name has"),
        (
            {"contestants": {"dense": {}, "a": {"from": "dens"}}},
            r"no contestant 'dens' \(did you mean 'dense'",
        ),
        ({"contestants": {"a": {"from": "b"}, "b": {"from": "a"}}}, "start from one another: a from b from a"),
        ({"contestants": {"a": {"from": "a"}}}, "start from one another: a from a"),
        ({"contestants": {"a": {"train.epoch": 2}}}, r"a: unknown key 'train.epoch' \(did you mean 'train.epochs'"),
        ({"contestants": {"a": {"train.epochs": 0}}}, "a: train.epochs=0: must be above 0"),
        ({"contestants": {"a": {"train.epochs": "two"}}}, "a: train.epochs: "),
        ({"contestants": {"a": {"model.reduction": {"evitt": {}}}}}, r"a: .*evitt.*did you mean 'evit'"),
        ({"contestants": {"a": {"model.reduction.evit": {"keep": 1}}}}, r"a: evit: unknown option 'keep'"),
        ({"contestants": {"a": {"model.reduction.evit": {"keep_rate": 3}}}}, "a: evit: keep_rate"),
        ({"contestants": {"a": {"train.seed": 2}}}, "a: train.seed cannot be set here: study.seeds"),
        ({"contestants": {"a": {"output": "x"}}}, "a: output cannot be set here"),
        ({"contestants": {"a": {}, "b": {"from": "a", "init": "x"}}}, "b: init cannot be set here: from:"),
        ({"contestants": {"a": {}, "b": {"evaluate.views": "1x1"}}}, "evaluate.views is 1x3 for a and 1x1 for b"),
        ({"contestants": {"a": {"data.val": None}}}, "a: data.val is not set"),
        ({"contestants": {"a": {}}, "seeds": []}, "study.seeds: expected different whole numbers"),
        ({"contestants": {"a": {}}, "seeds": [1, 1]}, "study.seeds: expected different whole numbers"),
        ({"contestants": {"a": {}}, "seeds": 3}, "study.seeds: expected different whole numbers"),
        ({"contestants": {"a": {}}, "compare": [["a", "b"]]}, "study.compare: there is no contestant 'b'"),
        ({"contestants": {"a": {}}, "compare": ["a", "b"]}, "study.compare: expected pairs"),
        ({"contestants": {"a": {}}, "base": None}, "study.base: expected a configuration file"),
        ({"contestants": {"a": {}}, "base": "nowhere.yaml"}, "nowhere.yaml: no such configuration file"),
    ],
)
def test_a_mistake_is_one_line(write, study, message):
    with pytest.raises(StvideoError, match=message) as error:
        read_study(write(study))
    assert "\n" not in str(error.value)


def test_mistakes_on_the_command_line_and_elsewhere_are_told_as_such(write, tmp_path):
    path = write({"contestants": {"a": {}}})
    for text, message in (
        ("train.lrr=1", "^the command line: unknown key 'train.lrr'"),
        ("train.seed=1", "cannot be set"),
    ):
        with pytest.raises(StvideoError, match=message):
            read_study(path, [text])
    with pytest.raises(StvideoError, match=r"keep.yaml: a: unknown key 'modell'"):
        read_study(write({"contestants": {"a": {}}}, modell={"name": "x"}))
    (tmp_path / "list.yaml").write_text("- a\n")
    for name, message in (("list.yaml", "expected 'key: value'"), ("none.yaml", "no such configuration file")):
        with pytest.raises(StvideoError, match=message):
            read_study(tmp_path / name)
