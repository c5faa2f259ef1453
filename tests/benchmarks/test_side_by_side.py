"""Comparisons side by side: the sums, never the clock."""

import json
import statistics

import pytest
import torch
from PIL import Image

from stvideo.benchmark import main

TINY = "embed_dim=32 depth=4 num_heads=2 img_size=32 num_frames=2 num_classes=3"


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
    assert list(sections) == ["batch-1", "batch-3"]
    for batch, section in zip((1, 3), sections.values(), strict=True):
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
        dense, reduced = sections["batch-3"]["rows"]
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


@pytest.mark.slow  # the compiler takes half a minute for each
def test_every_compiled_model_is_compiled_at_every_batch_size(tmp_path):
    """More models and shapes than torch.compile keeps by default, beyond which it would run the rest as they are."""
    tiny = TINY.replace("depth=4", "depth=1")
    arguments = [f"timesformer_tiny_patch16_224 {tiny}", "+evit.keep_rate=0.5 evit.layers=[0]"]
    options = ["forms=compiled,optimized-compiled", "batch_sizes=1,2", "rounds=1", f"output={tmp_path}"]
    with torch._dynamo.config.patch(recompile_limit=1):
        assert main([*arguments, *options]) == 0
    sections = json.loads((tmp_path / "benchmark.json").read_text())["sections"]
    assert [section["key"] for section in sections] == ["batch-1", "batch-2"]
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


def test_a_single_reduced_model_is_compared_with_its_dense_one(capsys):
    assert main([f"evit_deit_tiny_patch16_224 {TINY} keep_rate=0.5", "rounds=1", "batch_sizes=2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[0] for line in lines if "deit_tiny" in line and not line.startswith("-")]
    assert names == ["deit_tiny_patch16_224", "evit_deit_tiny_patch16_224"]
