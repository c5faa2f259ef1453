"""The models of a comparison, as they are written on the command line."""

import pytest
import torch

from stvideo.benchmarks.candidates import dense_counterpart, parse_candidates
from stvideo.weights.saving import save_model


def test_candidates():
    texts = [
        "timesformer_tiny_patch16_224 img_size=64",
        "+evit.keep_rate=0.5 evit.layers=[1, 2]",
        "+stgm.layers=(4,5) stgm.grid=(None, 2, 2)",
    ]
    dense, evit, stgm = parse_candidates(texts)
    assert dense.arguments == {"img_size": 64}
    assert evit.arguments == {"img_size": 64}
    assert evit.reductions == {"evit": {"keep_rate": 0.5, "layers": [1, 2]}}
    assert stgm.reductions == {"stgm": {"layers": [4, 5], "grid": [None, 2, 2]}}
    model = stgm.build({"num_frames": 4})
    assert model.example_shape() == (1, 3, 4, 64, 64)
    assert model.reductions["stgm"].layers == (4, 5)


def test_a_configuration_and_a_checkpoint_are_candidates(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text(
        "model: {name: timesformer_tiny_patch16_224, reduction: {evit: {keep_rate: 0.7}},"
        " args: {embed_dim: 32, depth: 4, num_heads: 2}}\ndata: {num_frames: 2, img_size: 32}\n"
    )
    (candidate,) = parse_candidates([f"{config} model.num_classes=5 evit.fuse=false"])
    model = candidate.build({})
    assert model.reductions["evit"].keep_rates == (0.7,) * 3
    assert not model.reductions["evit"].fuse
    assert model.num_classes == 5
    save_model(tmp_path / "my model.safetensors", model, {})
    (saved,) = parse_candidates([str(tmp_path / "my model.safetensors")])
    again = saved.build({})
    assert torch.equal(again.head.weight, model.head.weight)
    for one in (candidate, saved):
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
    (candidate,) = parse_candidates([text])
    with torch.device("meta"):
        counterpart = dense_counterpart(candidate, candidate.build({}))
    assert (counterpart and counterpart.source) == dense
