"""The evaluation command: numbers that can be recomputed, on any number of processes, or a refusal."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
import torch

import stvideo
from stvideo.data.clips.transforms import normalize
from stvideo.data.lists.split_report import write_report
from stvideo.data.loading.datasets import build_dataset
from stvideo.settings.config import load_config
from stvideo.weights.factory import load_model
from tests.test_train import assert_one_line
from tests.tiny_runs import CLASSES, TINY, VAL_VIDEOS, make_data, run_command, run_here


@pytest.fixture(scope="module")
def run(data, config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    assert run_here("train", config, *TINY, *data, f"output={folder}", "train.max_steps=5", "train.lr=3e-3") == 0
    return folder


def evaluate(run, output, *overrides):
    """Evaluate without any configuration file. Returns (metrics, predictions)."""
    assert run_here("evaluate", f"checkpoint={run}", f"output={output}", *overrides) == 0
    return read(output)


def read(output):
    metrics = json.loads((Path(output) / "metrics.json").read_text())
    with (Path(output) / "predictions.csv").open() as file:
        return metrics, list(csv.DictReader(file))


def test_numbers_equal_a_recomputation_from_the_predictions(run, tmp_path, capsys):
    metrics, rows = evaluate(run, tmp_path, "evaluate.views=2x3")
    assert len(rows) == metrics["evaluated"] == metrics["expected"] == VAL_VIDEOS
    assert metrics["top1"] == pytest.approx(100 * sum(r["truth"] == r["top1"] for r in rows) / VAL_VIDEOS)
    assert metrics["top5"] == 100.0  # three classes
    assert all(sum(float(r[f"score{k}"]) for k in (1, 2, 3)) == pytest.approx(1, abs=1e-4) for r in rows)
    assert all(Path(r["video"]).parent.name == r["truth"] for r in rows)
    printed = capsys.readouterr().out
    assert "2x3 views" in printed
    assert f"{VAL_VIDEOS} of {VAL_VIDEOS} videos" in printed
    assert "GMACs per view" in printed


def test_scores_equal_the_slow_way(run, data, tmp_path):
    """One view at a time, averaged by hand."""
    _, rows = evaluate(run, tmp_path, "evaluate.views=2x3", "data.batch_size=5")
    model = load_model(run)
    metadata = model.metadata
    settings = load_config(base=metadata["config"]).data
    dataset = build_dataset(settings, split="val", views="2x3")
    model.eval()
    for number, row in enumerate(rows):
        total = torch.zeros(3)
        for view in range(6):
            sample = dataset[6 * number + view]
            assert (sample["index"], sample["view"]) == (number, view)
            with torch.inference_mode():
                total += model(normalize(sample["video"][None], settings.mean, settings.std)).softmax(1)[0]
        best = (total / 6).sort(descending=True)
        assert [row[f"top{k}"] for k in (1, 2, 3)] == [dataset.classes[k] for k in best.indices]
        assert [float(row[f"score{k}"]) for k in (1, 2, 3)] == pytest.approx(best.values.tolist(), abs=1e-4)


def test_logits_can_be_averaged_instead(run, tmp_path, capsys):
    """One view at a time: the mean of the logits, then a softmax."""
    settings = ["evaluate.views=2x3", "data.batch_size=5"]
    metrics, rows = evaluate(run, tmp_path / "logits", *settings, "evaluate.average=logits")
    assert metrics["averaging"] == "logits, per video" and "logits averaged per video" in capsys.readouterr().out
    model = load_model(run)
    metadata = model.metadata
    data = load_config(base=metadata["config"]).data
    dataset = build_dataset(data, split="val", views="2x3")
    model.eval()
    for number, row in enumerate(rows):
        clips = torch.stack([dataset[6 * number + view]["video"] for view in range(6)])
        with torch.inference_mode():
            expected = model(normalize(clips, data.mean, data.std)).mean(0).softmax(0).sort(descending=True)
        assert [float(row[f"score{k}"]) for k in (1, 2, 3)] == pytest.approx(expected.values.tolist(), abs=1e-4)


def test_a_protocol_by_name(run, tmp_path, capsys):
    metrics, rows = evaluate(run, tmp_path / "name", "evaluate.views=k400-4x3-even")
    captured = capsys.readouterr()
    assert (metrics["protocol"], metrics["views"], metrics["sampling"]) == ("k400-4x3-even", "4x3", "stride")
    assert "k400-4x3-even: 4x3 views (clips x crops)" in captured.out
    assert "Kinetics-400 validation with 400 classes; these data have 3" in captured.err
    assert metrics["official"] is None
    assert evaluate(run, tmp_path / "plain", "evaluate.views=4x3")[1] == rows
    arguments = [f"checkpoint={run}", f"output={tmp_path}", "evaluate.views=ssv2-2x3"]
    capsys.readouterr()
    assert run_here("evaluate", *arguments) == 2
    assert_one_line(capsys, r"ssv2-2x3 is a protocol of data.sampling=segment.*trained with data.sampling=stride")
    metrics, _ = evaluate(run, tmp_path / "segment", "evaluate.views=ssv2-2x3", "data.sampling=segment")
    assert (metrics["views"], metrics["sampling"]) == ("2x3", "segment")


def test_tables_of_the_classes_are_those_of_counting(run, tmp_path):
    _, rows = evaluate(run, tmp_path)
    with (tmp_path / "per_class.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [line["class"] for line in table] == list(CLASSES)
    for line in table:
        own = [row["top1"] for row in rows if row["truth"] == line["class"]]
        right = own.count(line["class"])
        assert (int(line["videos"]), int(line["right"])) == (len(own), right)
        assert float(line["top1"]) == pytest.approx(100 * right / len(own), abs=0.01)
        wrong = [guess for guess in own if guess != line["class"]]
        if wrong:
            assert int(line["so_many_times"]) == max(wrong.count(guess) for guess in wrong)
            assert wrong.count(line["most_often_taken_for"]) == int(line["so_many_times"])


def test_two_processes_equal_one(run, tmp_path):
    """Seven videos do not split evenly: nothing may be lost or counted twice."""
    one, rows = evaluate(run, tmp_path / "one", "evaluate.views=2x1")
    settings = [f"checkpoint={run}", f"output={tmp_path / 'two'}", "evaluate.views=2x1", "data.workers=1"]
    done = run_command("evaluate", *settings, processes=2)
    assert done.returncode == 0 and "Exception" not in done.stderr, done.stderr
    two, others = read(tmp_path / "two")
    assert two["processes"] == 2
    for key in ("top1", "top5", "evaluated", "expected", "gmacs_per_view"):
        assert one[key] == two[key]
    for a, b in zip(rows, others, strict=True):
        assert [a[k] for k in ("index", "video", "truth", "top1")] == [
            b[k] for k in ("index", "video", "truth", "top1")
        ]
        assert float(a["score1"]) == pytest.approx(float(b["score1"]), abs=1e-5)


def test_a_reduction_can_be_put_in_without_training(run, tmp_path, capsys):
    dense, _ = evaluate(run, tmp_path / "dense")
    evit = ["model.reduction.evit.keep_rate=0.5", "model.reduction.evit.layers=[0]"]
    reduced, _ = evaluate(run, tmp_path / "evit", *evit)
    assert dense["reduction"] == {}
    assert reduced["reduction"]["evit"]["keep_rate"] in (0.5, [0.5])
    assert reduced["gmacs_per_view"] < dense["gmacs_per_view"]
    neutral, _ = evaluate(run, tmp_path / "neutral", "model.reduction={evit: {keep_rate: 1.0, layers: [0]}}")
    assert neutral["top1"] == dense["top1"]
    assert run_here("evaluate", f"checkpoint={run}", f"output={tmp_path}", "model.args.depth=2") == 2
    assert "only model.reduction can be changed" in capsys.readouterr().err


def test_preprocessing_comes_from_the_checkpoint(run, config, data, tmp_path, capsys):
    evaluate(run, tmp_path / "own")
    assert capsys.readouterr().err == ""
    yaml = tmp_path / "other.yaml"
    yaml.write_text("data: {mean: [0.1, 0.1, 0.1], img_size: 64, short_side: [64, 64]}\n")
    same = ["evaluate.views=2x1", "data.batch_size=4"]  # scores may differ in the last digit between batch sizes
    assert run_here("evaluate", str(yaml), *data, *same, f"checkpoint={run}", f"output={tmp_path / 'yaml'}") == 0
    assert "data.img_size=32 as in the checkpoint, not 64" in capsys.readouterr().out
    assert read(tmp_path / "yaml")[1] == read(tmp_path / "own")[1]
    evaluate(run, tmp_path / "overridden", "data.img_size=64", "data.short_side=[64,64]")
    assert "data.img_size=64 overrides the checkpoint's 32" in capsys.readouterr().err


def test_results_go_into_the_run_folder(run, data, config):
    assert run_here("evaluate", config, *data, f"checkpoint={run / 'last'}") == 0
    assert (run / "metrics.json").exists()
    assert (run / "predictions.csv").exists()
    assert (run / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_classes_in_another_order_are_refused(run, tmp_path, capsys):
    names = tmp_path / "classes.txt"
    names.write_text("\n".join(("up", "left", "right")) + "\n")
    assert run_here("evaluate", f"checkpoint={run}", f"output={tmp_path}", f"data.classes={names}") == 2
    assert_one_line(capsys, r"class 0 is 'left' in the checkpoint and 'up' in the data")


def test_an_unreadable_video_stops_the_evaluation(run, config, tmp_path, capsys):
    data = make_data(tmp_path / "videos")
    broken = tmp_path / "videos" / "val" / "up" / "2.mp4"
    broken.write_bytes(b"not a video" * 100)
    for workers in (0, 1):
        arguments = [*data, f"data.workers={workers}", f"checkpoint={run}", f"output={tmp_path / 'out'}"]
        assert run_here("evaluate", config, *arguments) == 2
        assert_one_line(capsys, re.escape(str(broken)))
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_an_unreadable_video_can_be_listed_and_counts_as_missing(run, tmp_path, capsys):
    data = make_data(tmp_path / "videos")
    broken = tmp_path / "videos" / "val" / "up" / "2.mp4"
    broken.write_bytes(b"not a video" * 100)
    _, whole = evaluate(run, tmp_path / "whole")
    capsys.readouterr()
    for workers in (0, 1):
        # one clip per batch: a batch may be left with nothing
        settings = [*data, f"data.workers={workers}", "evaluate.unreadable=list", "evaluate.batch_size=1"]
        metrics, rows = evaluate(run, tmp_path / "out", *settings)
        captured = capsys.readouterr()
        assert str(broken) in captured.err and "left out" in captured.err
        assert f"{VAL_VIDEOS - 1} of {VAL_VIDEOS} videos (1 missing, 1 of them unreadable; top-1" in captured.out
        assert (metrics["evaluated"], metrics["expected"]) == (VAL_VIDEOS - 1, VAL_VIDEOS)
        assert [entry["video"] for entry in metrics["unreadable"]] == [str(broken)]
        right = sum(row["truth"] == row["top1"] for row in rows)
        assert metrics["top1"] == pytest.approx(100 * right / (VAL_VIDEOS - 1))
        assert metrics["top1_missing_as_wrong"] == pytest.approx(100 * right / VAL_VIDEOS)
        names = [Path(row["video"]).relative_to(tmp_path / "videos") for row in rows]
        others = [Path(row["video"]).parts[-3:] for row in whole if not row["video"].endswith("up/2.mp4")]
        assert [name.parts for name in names] == others  # nothing else is gone, nothing stands in for it


def test_nothing_readable_is_no_result(run, tmp_path, capsys):
    data = make_data(tmp_path / "videos")
    for path in (tmp_path / "videos" / "val").rglob("*.mp4"):
        path.write_bytes(b"")
    settings = [*data, "evaluate.unreadable=list", f"output={tmp_path / 'out'}"]
    assert run_here("evaluate", str(run), *settings) == 2
    assert "none of 7 videos could be read" in capsys.readouterr().err
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_missing_videos_are_told_against_the_official_split(run, tmp_path, capsys):
    data = make_data(tmp_path / "videos")
    videos = sorted((tmp_path / "videos" / "val").rglob("*.mp4"))
    lines = [f"{v.relative_to(tmp_path / 'videos')} {CLASSES.index(v.parent.name)}\n" for v in videos[:-2]]
    (tmp_path / "videos" / "val.txt").write_text("".join(lines))
    (tmp_path / "videos" / "classes.txt").write_text("\n".join(CLASSES))
    write_report(tmp_path / "videos" / "val.txt", {"official": 10, "found": 5, "missing": 5})
    metrics, _ = evaluate(run, tmp_path / "out", data[0], "data.val=val.txt", "data.classes=classes.txt")
    assert (metrics["evaluated"], metrics["expected"], metrics["official"]) == (5, 5, 10)
    assert metrics["top1_missing_as_wrong"] == pytest.approx(metrics["top1"] / 2)
    assert "5 of 10 videos of the official split (5 missing;" in capsys.readouterr().out


def test_a_damaged_checkpoint_is_refused(run, tmp_path, capsys):
    shutil.copytree((run / "last").resolve(), tmp_path / "copy")
    weights = tmp_path / "copy" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert run_here("evaluate", f"checkpoint={tmp_path / 'copy'}", f"output={tmp_path}") == 2
    assert_one_line(capsys, r"damaged checkpoint: model.safetensors does not have its checksum")


def test_official_weights_without_a_description(run, config, data, tmp_path, capsys):
    """An upstream file has no class names; a head of another size is refused."""
    model = stvideo.create_model(
        "timesformer_base_patch16_224", num_classes=3, num_frames=4, img_size=32, embed_dim=64, depth=2, num_heads=1
    )
    path = tmp_path / "official.pyth"
    torch.save({"model_state": {f"model.{name}": value for name, value in model.state_dict().items()}}, path)
    settings = [*data, "data.workers=0", f"checkpoint={path}", f"output={tmp_path}"]
    assert run_here("evaluate", config, *settings) == 0
    assert read(tmp_path)[0]["evaluated"] == VAL_VIDEOS
    capsys.readouterr()
    four = tmp_path / "classes.txt"
    four.write_text("\n".join((*CLASSES, "down")) + "\n")
    assert run_here("evaluate", config, *settings, f"data.classes={four}") == 2
    warning, error = capsys.readouterr().err.strip().splitlines()
    assert "class 'down' has no video" in warning and "has 3 classes and the data 4" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], r"checkpoint= is missing"),
        (["checkpoint=/no/such/run"], r"/no/such/run: no such checkpoint"),
        (["checkpoint=RUN", "evaluate.views=three"], r"evaluate.views=three: expected CLIPSxCROPS"),
        (["checkpoint=RUN", "evaluate.views=k400-1x4"], r"did you mean 'k400-1x3'"),
        (["checkpoint=RUN", "evaluate.average=mean"], r"evaluate.average=mean: unknown.*softmax, logits"),
        (["checkpoint=RUN", "evaluate.unreadable=skip"], r"evaluate.unreadable=skip: unknown.*stop, list"),
        (["RUN", "checkpoint=RUN"], r"given twice"),
        (["checkpoint=RUN", "data.root=/no/folder"], r"data.root=/no/folder"),
        (["checkpoint=RUN", "output=/dev/null/x"], r"output=/dev/null/x: cannot write there"),
        (["checkpoint=RUN", "model.reduction.evit.keep_rate=0"], r"evit.*keep_rate"),
        (["checkpoint=RUN", "data.rooot=/x"], r"unknown key 'data.rooot'.*did you mean 'data.root'"),
    ],
)
def test_bad_input_is_one_line(run, capsys, arguments, message):
    assert run_here("evaluate", *[text.replace("RUN", str(run)) for text in arguments]) == 2
    assert_one_line(capsys, message)
