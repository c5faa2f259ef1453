"""The evaluation command: numbers that can be recomputed, on any number of processes, or a refusal."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
import torch

import stvideo
from stvideo.config import load_config
from stvideo.data.datasets import build_dataset
from stvideo.data.transforms import normalize
from stvideo.models.factory import load_model
from tests.test_train import assert_one_line
from tests.tiny_runs import CLASSES, TINY, VAL_VIDEOS, config_file, make_data, run_command, run_here


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("videos"))


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return config_file(tmp_path_factory.mktemp("config"))


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
    model, metadata = load_model(run)
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


def test_two_processes_equal_one(run, tmp_path):
    """Seven videos do not split evenly: nothing may be lost or counted twice."""
    one, rows = evaluate(run, tmp_path / "one", "evaluate.views=2x1")
    done = run_command("evaluate", f"checkpoint={run}", f"output={tmp_path / 'two'}", "evaluate.views=2x1", processes=2)
    assert done.returncode == 0, done.stderr
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
    assert_one_line(capsys, r"has 3 classes and the data 4")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], r"checkpoint= is missing"),
        (["checkpoint=/no/such/run"], r"/no/such/run: no such checkpoint"),
        (["checkpoint=RUN", "evaluate.views=three"], r"evaluate.views=three: expected CLIPSxCROPS"),
        (["checkpoint=RUN", "data.root=/no/folder"], r"data.root=/no/folder"),
        (["checkpoint=RUN", "output=/dev/null/x"], r"output=/dev/null/x: cannot write there"),
        (["checkpoint=RUN", "model.reduction.evit.keep_rate=0"], r"evit.*keep_rate"),
        (["checkpoint=RUN", "data.rooot=/x"], r"unknown key 'data.rooot'.*did you mean 'data.root'"),
    ],
)
def test_bad_input_is_one_line(run, capsys, arguments, message):
    assert run_here("evaluate", *[text.replace("RUN", str(run)) for text in arguments]) == 2
    assert_one_line(capsys, message)
