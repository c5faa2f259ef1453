"""Sweeps through the real command: curves whose numbers can be recomputed, on any number of processes."""

import csv
import json

import pytest
from PIL import Image

from tests.test_train import assert_one_line
from tests.tiny_runs import TINY, VAL_VIDEOS, config_file, make_data, run_command, run_here

SWEEP = "sweep=keep_rate:1.0,0.5"


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """A dense run and an EViT run of a few steps, on 4 x 4 patches."""
    folder, config = tmp_path_factory.mktemp("runs"), config_file(tmp_path_factory.mktemp("config"))
    settings = [*TINY, "model.args={embed_dim: 32, depth: 3, num_heads: 2, patch_size: 8}", *data, "train.max_steps=5"]
    evit = "model.reduction.evit={keep_rate: 0.7, layers: [0, 1]}"
    assert run_here("train", config, *settings, f"output={folder / 'dense'}") == 0
    assert run_here("train", config, *settings, f"output={folder / 'evit'}", evit) == 0
    return folder


def read(output):
    content = json.loads((output / "sweep.json").read_text())
    return content, {point["name"]: point for point in content["points"]}


def rows_of(output, name):
    with (output / "predictions" / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def top1(rows):
    return 100 * sum(row["truth"] == row["top1"] for row in rows) / len(rows)


def test_a_sweep_over_one_run(runs, tmp_path, capsys):
    assert run_here("evaluate", str(runs / "evit"), SWEEP, f"output={tmp_path}") == 0
    content, points = read(tmp_path)
    assert list(points) == ["dense", "keep_rate-1.0", "keep_rate-0.5", "random-keep_rate-0.5"]
    assert content["views"] == "2x1" and content["expected"] == VAL_VIDEOS
    for name, point in points.items():
        rows = rows_of(tmp_path, name)
        assert point["top1"] == pytest.approx(top1(rows)) and point["evaluated"] == len(rows) == VAL_VIDEOS
        assert point["top1_low"] <= point["top1"] <= point["top1_high"]
        assert point["clips_per_second"] > 0
    full, half, random = (points[name] for name in ("keep_rate-1.0", "keep_rate-0.5", "random-keep_rate-0.5"))
    assert rows_of(tmp_path, "dense") == rows_of(tmp_path, "keep_rate-1.0")  # a neutral setting is exact
    assert full["gmacs_per_view"] == pytest.approx(points["dense"]["gmacs_per_view"], rel=0.01)  # the scores cost
    assert half["gmacs_per_view"] < 0.7 * full["gmacs_per_view"]
    assert random["gmacs_per_view"] == pytest.approx(half["gmacs_per_view"], rel=0.06)
    assert random["is_control"] and half["control"] == "random-keep_rate-0.5" and full["control"] is None
    assert half["minus_control"] == pytest.approx(half["top1"] - random["top1"])
    assert Image.open(tmp_path / "sweep.png").width > 1500
    assert "keep_rate-0.5" in capsys.readouterr().out
    # Each point is what an evaluation of its own finds.
    settings = [f"output={tmp_path / 'alone'}", "model.reduction.evit.keep_rate=0.5"]
    assert run_here("evaluate", str(runs / "evit"), *settings) == 0
    alone = json.loads((tmp_path / "alone" / "metrics.json").read_text())
    assert (alone["top1"], alone["gmacs_per_view"]) == (half["top1"], half["gmacs_per_view"])


def test_two_processes_equal_one_and_list_the_same_unreadable_video(runs, tmp_path):
    videos = make_data(tmp_path / "videos")
    (tmp_path / "videos" / "val" / "up" / "2.mp4").write_bytes(b"not a video" * 100)
    settings = [str(runs / "dense"), SWEEP, *videos, "evaluate.unreadable=list", "evaluate.control=false"]
    assert run_here("evaluate", *settings, f"output={tmp_path / 'one'}") == 0
    done = run_command("evaluate", *settings, f"output={tmp_path / 'two'}", processes=2)
    assert done.returncode == 0, done.stderr
    (one, points), (two, others) = read(tmp_path / "one"), read(tmp_path / "two")
    assert (one["processes"], two["processes"]) == (1, 2)
    assert one["unreadable"] == two["unreadable"]
    assert [entry["video"] for entry in one["unreadable"]] == [str(tmp_path / "videos" / "val" / "up" / "2.mp4")]
    for name, point in points.items():
        assert point["evaluated"] == VAL_VIDEOS - 1
        assert all(point[key] == others[name][key] for key in ("top1", "top5", "gmacs_per_view", "evaluated"))
        for a, b in zip(rows_of(tmp_path / "one", name), rows_of(tmp_path / "two", name), strict=True):
            assert [a[key] for key in ("video", "truth", "top1")] == [b[key] for key in ("video", "truth", "top1")]
            assert float(a["score1"]) == pytest.approx(float(b["score1"]), abs=1e-5)


def test_several_runs_in_one_picture(runs, tmp_path):
    both = [str(runs / "dense"), str(runs / "evit")]
    assert run_here("evaluate", *both, f"output={tmp_path}") == 0
    _, points = read(tmp_path)
    assert list(points) == ["dense", "evit", "random-evit"]
    assert points["dense"]["reduction"] == {} and set(points["evit"]["reduction"]) == {"evit"}
    assert points["evit"]["top1"] == pytest.approx(top1(rows_of(tmp_path, "evit")))
    assert run_here("compare", str(tmp_path / "predictions/evit.csv"), str(tmp_path / "predictions/dense.csv")) == 0


def test_a_second_sweep_into_the_same_folder_leaves_nothing_of_the_first(runs, tmp_path):
    sweep = ["evaluate", str(runs / "evit"), "evaluate.control=false", "evaluate.views=1x1", f"output={tmp_path}"]
    assert run_here(*sweep, "sweep=keep_rate:1.0,0.5") == 0
    (tmp_path / "predictions" / "notes.csv").write_text("of somebody else\n")
    assert run_here(*sweep, "sweep=keep_rate:0.7") == 0
    assert {p.name for p in (tmp_path / "predictions").iterdir()} == {"dense.csv", "keep_rate-0.7.csv", "notes.csv"}
    assert {p.name for p in tmp_path.iterdir()} == {"predictions", "sweep.json", "sweep.png"}


def test_the_results_of_one_run_lie_in_it(runs):
    assert run_here("evaluate", f"checkpoint={runs / 'dense'}", "sweep=keep_rate:0.5", "evaluate.control=false") == 0
    assert {p.name for p in (runs / "dense" / "sweep").iterdir()} == {
        "predictions", "sweep.json", "sweep.png",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["DENSE", "EVIT"], "output= is missing: several checkpoints"),
        (["DENSE", "DENSE", "output=OUT"], "given twice"),
        (["DENSE", "DENSE/best", "output=OUT"], "given twice"),
        (["DENSE", "checkpoint=EVIT"], "given twice"),
        (["DENSE", "nowhere", "output=OUT"], "nowhere: no such checkpoint"),
        (["EVIT", "output=OUT", "sweep=grid:Tx2x2"], "evit of this model has no such option"),
        (["EVIT", "sweep=keep_rate:1.5"], "keep_rate must be above 0"),
        (["EVIT", "sweep=keep_rate"], "expected OPTION:VALUE"),
        (["a.yaml", "b.yaml"], "at most one configuration file"),
    ],
)
def test_bad_input_is_one_line(runs, tmp_path, capsys, arguments, message):
    names = {"DENSE": runs / "dense", "EVIT": runs / "evit", "OUT": tmp_path}
    for name, path in names.items():
        arguments = [text.replace(name, str(path)) for text in arguments]
    assert run_here("evaluate", *arguments) == 2
    assert_one_line(capsys, message)
