"""The benchmark command, and comparisons side by side: never the clock."""

import json
import statistics
import subprocess
import sys

import pytest
import torch
from PIL import Image

import stvideo
from stvideo import StvideoError
from stvideo.benchmark import main
from stvideo.benchmarks import compare, paper_tables, textbook
from stvideo.benchmarks.entrants import FORMS, enter
from stvideo.benchmarks.targets import dense_counterpart, parse_targets
from stvideo.settings import cli
from stvideo.settings.command_settings import read_command_line

TINY = "embed_dim=32 depth=4 num_heads=2 img_size=32 num_frames=2 num_classes=3"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["paper-tables", "rows=nonsense"], "no such table"),
        (["paper-tables", "--rows", "evit"], "unknown option '--rows'; settings are written key=value"),
        (["paper-tables", "--optimise"], "unknown option '--optimise'"),
        (["paper-tables", "evit"], "not 'evit'"),
        (["paper-tables", "data.root=x"], "not 'data.root=x'"),
        (["paper-tables", "rounds=0"], "rounds=0: expected 1 or more"),
        (["paper-tables", "precision=fp61"], "choose fp32 or bf16"),
        (["paper-tables", "measure=maybe"], "measure=maybe"),
        (["deit_tini_patch16_224"], "did you mean 'deit_tiny_patch16_224'?"),
        (["configs/absent.yaml"], "neither a model nor a file"),
        (["deit_tiny_patch16_224", "keep_rate=0.5"], "stands in its quotes"),
        (["deit_tiny_patch16_224", "batch_sizes=0"], "batch_sizes=0: expected 1 or more"),
        (["deit_tiny_patch16_224", "mode=backward"], "choose forward, train, end_to_end"),
        (["deit_tiny_patch16_224", "forms=eager,compield"], "no such form (did you mean 'compiled'?)"),
        (["deit_tiny_patch16_224", "mode=train", "--optimize"], "the form optimized does not train"),
        (["deit_tiny_patch16_224", "forms=onnx", "precision=bf16"], "the form onnx is float32"),
        (["deit_tiny_patch16_224", "files=/videos"], "with mode=end_to_end only"),
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
    [(["paper-tables", "--help"], paper_tables.Settings), (["models", "--help"], compare.Settings)],
)
def test_help_names_every_setting(capsys, arguments, settings):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 0
    shown = capsys.readouterr().out
    for name in settings.__dataclass_fields__:
        assert f"{name}=" in shown or name in ("img_size", "num_classes")
    if settings is compare.Settings:
        assert all(f"\n    {form} " in shown for form in FORMS)
    assert "{" not in shown


def test_switches_are_options_too():
    argv = ["x", "batch_sizes=1,4", "--compile", "rounds=3", "y.z=1"]
    positional, settings, rest = read_command_line(compare.Settings, argv)
    assert (positional, rest) == (["x"], ["y.z=1"])
    assert (settings.batch_sizes, settings.compile, settings.rounds) == ([1, 4], True, 3)


def test_targets():
    texts = [
        "timesformer_tiny_patch16_224 img_size=64",
        "+evit.keep_rate=0.5 evit.layers=[1, 2]",
        "+stgm.layers=(4,5) stgm.grid=(None, 2, 2)",
    ]
    dense, evit, stgm = parse_targets(texts)
    assert dense.arguments == {"img_size": 64}
    assert evit.arguments == {"img_size": 64}
    assert evit.reductions == {"evit": {"keep_rate": 0.5, "layers": [1, 2]}}
    assert stgm.reductions == {"stgm": {"layers": [4, 5], "grid": [None, 2, 2]}}
    model = stgm.build({"num_frames": 4})
    assert model.example_shape() == (1, 3, 4, 64, 64)
    assert model.reductions["stgm"].layers == (4, 5)


def test_a_configuration_and_a_checkpoint_are_targets(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text(
        "model: {name: timesformer_tiny_patch16_224, reduction: {evit: {keep_rate: 0.7}},"
        " args: {embed_dim: 32, depth: 4, num_heads: 2}}\ndata: {num_frames: 2, img_size: 32}\n"
    )
    (target,) = parse_targets([f"{config} model.num_classes=5 evit.fuse=false"])
    model = target.build({})
    assert model.reductions["evit"].keep_rates == (0.7,) * 3
    assert not model.reductions["evit"].fuse
    assert model.num_classes == 5
    stvideo.weights.reading.save_model(tmp_path / "my model.safetensors", model, {})
    (saved,) = parse_targets([str(tmp_path / "my model.safetensors")])
    again = saved.build({})
    assert torch.equal(again.head.weight, model.head.weight)
    for one in (target, saved):
        counterpart = dense_counterpart(one, model)
        assert len(counterpart.build({}).reductions) == 0


@pytest.mark.parametrize(
    ("text", "dense"),
    [
        ("evit_deit_tiny_patch16_224", "deit_tiny_patch16_224"),
        ("stvit_deit_tiny_patch16_224", "deit_tiny_patch16_224"),
        ("timesformer_tiny_patch16_224 evit", "timesformer_tiny_patch16_224"),
        ("stvit_swin_tiny_patch4_window7_224", "swin_tiny_patch4_window7_224"),
        ("deit_tiny_patch16_224", None),
    ],
)
def test_what_a_reduced_model_is_compared_with(text, dense):
    (target,) = parse_targets([text])
    with torch.device("meta"):
        counterpart = dense_counterpart(target, target.build({}))
    assert (counterpart and counterpart.source) == dense


@pytest.mark.parametrize("mode", ["forward", "train"])
def test_side_by_side(tmp_path, capsys, mode):
    arguments = [
        f"timesformer_tiny_patch16_224 {TINY}",
        "+evit.keep_rate=0.5",
        "batch_sizes=1,3",
        "rounds=2",
        f"mode={mode}",
        f"output={tmp_path}",
    ]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert (tmp_path / "benchmark.txt").read_text() in shown
    assert Image.open(tmp_path / "benchmark.png").size[0] > 800
    content = json.loads((tmp_path / "benchmark.json").read_text())
    assert content["machine"]["torch"] == torch.__version__
    sections = {section["key"]: section for section in content["sections"]}
    races = [sections.pop("batch-1"), sections.pop("batch-3")]
    assert list(sections) == (["own-cost-batch-1", "own-cost-batch-3"] if mode == "forward" else [])
    for section in sections.values():
        assert {"scores", "top-k", "gather", "fusion", "in all"} <= {row["part"] for row in section["rows"]}
        assert {row["model"] for row in section["rows"]} == {"+evit.keep_rate=0.5"}
    for batch, section in zip((1, 3), races, strict=True):
        dense, reduced = section["rows"]
        assert dense["speedup"] is None
        assert len(dense["rounds"]) == len(reduced["rounds"]) == 2
        ratios = [a / b for a, b in zip(dense["rounds"], reduced["rounds"], strict=True)]
        assert reduced["speedup"]["median"] == pytest.approx(statistics.median(ratios))
        assert reduced["speedup"]["low"] == pytest.approx(min(ratios))
        assert reduced["theory"] == pytest.approx(dense["gmacs"] / reduced["gmacs"])
        assert reduced["of_theory"] == pytest.approx(reduced["speedup"]["median"] / reduced["theory"])
        assert reduced["clips_per_second"] == pytest.approx(batch / statistics.median(reduced["rounds"]))
        for row in section["rows"]:
            assert row["of_products"] > 0
            assert (row["p50"] is not None) == (batch == 1)
            assert (row["saved_mib"] is not None) == (mode == "train")
    if mode == "train":
        dense, reduced = races[1]["rows"]
        assert reduced["saved_mib"] < dense["saved_mib"]


def test_forms_of_a_model_race_in_the_same_rounds(tmp_path):
    dense, evit = f"timesformer_tiny_patch16_224 {TINY}".replace("depth=4", "depth=1"), "+evit.layers=[0]"
    arguments = [dense, evit, "--reference", "--optimize", "forms=eager,onnx"]
    assert main([*arguments, "batch_sizes=2", "rounds=2", f"output={tmp_path}"]) == 0
    rows = json.loads((tmp_path / "benchmark.json").read_text())["sections"][0]["rows"]
    assert [(row["model"], row["form"]) for row in rows] == [
        *((dense, form) for form in ("textbook", "eager", "optimized", "onnx")),
        *((evit, form) for form in ("eager", "optimized", "onnx")),
    ]
    of = {(row["model"] == dense, row["form"]): row for row in rows}
    assert of[True, "optimized"]["gmacs"] < of[True, "eager"]["gmacs"] == pytest.approx(of[True, "textbook"]["gmacs"])
    for form in ("eager", "optimized", "onnx"):
        base, reduced = of[True, form], of[False, form]
        ratios = [a / b for a, b in zip(base["rounds"], reduced["rounds"], strict=True)]
        assert reduced["speedup"]["median"] == pytest.approx(statistics.median(ratios))
        assert reduced["theory"] == pytest.approx(base["gmacs"] / reduced["gmacs"])
        in_all = [a / b for a, b in zip(rows[0]["rounds"], reduced["rounds"], strict=True)]
        assert reduced["in_all"]["median"] == pytest.approx(statistics.median(in_all))
        assert base["speedup"] is None


@pytest.mark.parametrize("form", ["eager", "optimized", "exported", "onnx", "textbook"])
def test_every_form_computes_the_same(form):
    (target,) = parse_targets([f"timesformer_tiny_patch16_224 {TINY.replace('depth=4', 'depth=2')}"])
    model = target.build({})
    (entrant,), notes = enter(target, model, [form], precision="fp32", device=torch.device("cpu"))
    clip = torch.randn(3, *entrant.clip_shape)
    with torch.inference_mode():
        assert torch.allclose(entrant.run(clip), model.eval()(clip), atol=1e-4)
    assert (entrant.form, entrant.num_classes, notes) == (form, 3, [])


@pytest.mark.slow  # the compiler takes half a minute for each
def test_every_compiled_model_is_compiled_at_every_batch_size(tmp_path):
    """More models and shapes than torch.compile keeps by default, beyond which it would run the rest as they are."""
    tiny = TINY.replace("depth=4", "depth=1")
    arguments = [f"timesformer_tiny_patch16_224 {tiny}", "+evit.keep_rate=0.5 evit.layers=[0]"]
    options = ["forms=compiled,optimized-compiled", "batch_sizes=1,2", "rounds=1", f"output={tmp_path}"]
    with torch._dynamo.config.patch(recompile_limit=1):
        assert main([*arguments, *options]) == 0
    sections = json.loads((tmp_path / "benchmark.json").read_text())["sections"]
    assert [section["key"] for section in sections] == ["batch-1", "batch-2"]  # parts are heard of in eager models only
    for section in sections:
        assert [row["form"] for row in section["rows"]] == ["compiled", "optimized-compiled"] * 2
        assert all(row["seconds"] for row in section["rows"])


def test_timm_s_own_model_may_come_first(tmp_path):
    small = "img_size=32 embed_dim=32 depth=4 num_heads=2 num_classes=3"
    arguments = [f"timm:deit_tiny_patch16_224 {small}", f"deit_tiny_patch16_224 {small} evit.keep_rate=0.5"]
    assert main([*arguments, "--optimize", "batch_sizes=2", "rounds=2", f"output={tmp_path}"]) == 0
    content = json.loads((tmp_path / "benchmark.json").read_text())
    timm, eager, optimized = content["sections"][0]["rows"]
    assert [timm["form"], eager["form"], optimized["form"]] == ["eager", "eager", "optimized"]
    ratios = [a / b for a, b in zip(timm["rounds"], optimized["rounds"], strict=True)]  # timm's has that one form only
    assert optimized["speedup"]["median"] == pytest.approx(statistics.median(ratios))
    assert any("has no form 'optimized'" in note for note in content["notes"])


def test_the_textbook_is_missed_by_its_name(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(textbook, "REFERENCE", tmp_path / "reference_timesformer.py")
    with pytest.raises(StvideoError, match="run the benchmark in a checkout of the repository"):
        main([f"timesformer_tiny_patch16_224 {TINY}", "--reference", "batch_sizes=1"])


def test_a_single_reduced_model_is_compared_with_its_dense_one(capsys):
    assert main([f"evit_deit_tiny_patch16_224 {TINY} keep_rate=0.5", "rounds=1", "batch_sizes=2"]) == 0
    lines = capsys.readouterr().out.partition("where the forward pass goes")[0].splitlines()
    names = [line.split()[0] for line in lines if "deit_tiny" in line and not line.startswith("-")]
    assert names == ["deit_tiny_patch16_224", "evit_deit_tiny_patch16_224"]
