"""Checkpoints: every format in, ours out, and a clear line for what does not fit."""

import argparse
import json
import pickle

import pytest
import timm
import torch
from safetensors.torch import save_file

import stvideo
from stvideo import StvideoError, load_checkpoint, load_model
from stvideo.weights.loading import initialize
from stvideo.weights.reading import read_checkpoint, resolve_checkpoint
from stvideo.weights.saving import save_model
from tests.reduction.hosts import CLIP, host

SIZES = dict(embed_dim=32, depth=4, num_heads=4, patch_size=8, img_size=32, num_frames=4)


def vit(**options):
    """A timm ViT of the hosts' size."""
    torch.manual_seed(2)
    sizes = dict(embed_dim=32, depth=4, num_heads=4, patch_size=8, img_size=32, num_classes=5)
    return timm.models.VisionTransformer(**{**sizes, **options}).eval()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": s, "args": argparse.Namespace(lr=1e-3)},
        lambda s: {"model_state": {f"model.{k}": v for k, v in s.items()}},
        lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}},
        lambda s: {"model": {f"_orig_mod.module.{k}": v for k, v in s.items()}},
        lambda s: {"model": {k: v * 0 for k, v in s.items()}, "model_ema": s},
    ],
    ids=["bare", "state_dict", "namespace", "timesformer", "ddp", "compiled", "ema"],
)
def test_every_wrapping_is_seen_through(tmp_path, wrap):
    source = host("divided")
    torch.save(wrap(source.state_dict()), tmp_path / "weights.pth")
    model = stvideo.create_model("timesformer_base_patch16_224", num_classes=7, **SIZES).eval()
    report = load_checkpoint(model, tmp_path / "weights.pth")
    assert len(report.matched) == len(source.state_dict())
    assert not (report.missing or report.unexpected or report.resized or report.fresh_head)
    clip = torch.randn(CLIP)
    with torch.no_grad():
        assert torch.equal(model(clip), source(clip))


def test_our_own_format_rebuilds_the_model(tmp_path):
    reduction = {"evit": dict(keep_rate=[0.5, 0.75], layers=[0, 1]), "stgm": dict(layers=(2, 3), grid=(None, 2, 2))}
    source = host("divided", reduction)
    save_model(tmp_path / "model.safetensors", source, {"classes": list("abcdefg"), "preprocess": {"img_size": 32}})
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
    model = load_model(tmp_path)
    metadata = model.metadata
    clip = torch.randn(CLIP)
    with torch.no_grad():
        assert torch.equal(model.eval()(clip), source(clip))
    assert model.classes == metadata["classes"] == list("abcdefg")
    assert model.preprocessing.to_dict() == {**model.preprocessing.to_dict(), "img_size": 32, "num_frames": 4}
    assert list(model.reductions) == ["evit", "stgm"]

    dense = load_model(tmp_path, reduction={})
    assert not dense.reductions
    cheaper = load_model(tmp_path, reduction={"evit": dict(keep_rate=0.3, layers=(1,))})
    assert list(cheaper.reductions) == ["evit"]
    save_model(tmp_path / "again.safetensors", model, metadata)
    assert read_checkpoint(tmp_path / "again.safetensors").metadata["model"] == metadata["model"]


def test_a_variant_is_saved_as_its_dense_model_with_a_reduction(tmp_path):
    model = stvideo.create_model("evit_timesformer_tiny_patch16_224", keep_rate=0.5, num_classes=3)
    save_model(tmp_path / "m.safetensors", model, {})
    again = load_model(tmp_path / "m.safetensors")
    metadata = again.metadata
    assert metadata["model"]["name"] == "timesformer_tiny_patch16_224"
    assert again.reductions["evit"].keep_rates == (0.5, 0.5, 0.5)


def test_an_official_file_is_a_model_by_itself(tmp_path):
    source = stvideo.create_model(
        "timesformer_base_patch16_224", embed_dim=128, depth=2, num_heads=2, num_classes=174, num_frames=8, img_size=64
    ).eval()
    torch.save({"model_state": {f"model.{k}": v for k, v in source.state_dict().items()}}, tmp_path / "ssv2.pyth")
    model = load_model(tmp_path / "ssv2.pyth")
    metadata = model.metadata
    clip = torch.randn(1, 3, 8, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.eval()(clip), source(clip))
    assert metadata["preprocess"]["color_order"] == "bgr"
    assert metadata["preprocess"]["sampling"] == "segment"


def test_another_size_and_another_head_are_fitted_with_a_report(tmp_path):
    source = host("divided")
    torch.save(source.state_dict(), tmp_path / "w.pth")
    model = stvideo.create_model(
        "timesformer_base_patch16_224", num_classes=11, **{**SIZES, "img_size": 48, "num_frames": 7}
    )
    fresh = model.head.weight.clone()
    report = load_checkpoint(model, tmp_path / "w.pth")
    assert sorted(report.resized) == ["pos_embed", "time_embed"]
    assert sorted(report.missing) == ["head.bias", "head.weight"]
    assert report.fresh_head
    assert torch.equal(model.head.weight, fresh)
    assert torch.equal(model.pos_embed[:, 0], source.pos_embed[:, 0])
    for text in ("resized", "missing (head.weight, head.bias)"):
        assert text in report.summary()
    expected = torch.nn.functional.interpolate(
        source.pos_embed[:, 1:].detach().view(1, 4, 4, 32).permute(0, 3, 1, 2), size=(6, 6), mode="bicubic"
    )
    assert torch.allclose(model.pos_embed[0, 1:].detach(), expected[0].flatten(1).T, atol=1e-6)
    linear = torch.nn.functional.interpolate(source.time_embed.detach().transpose(1, 2), size=7, mode="linear")
    assert torch.allclose(model.time_embed.detach(), linear.transpose(1, 2), atol=1e-6)


def test_image_weights_start_a_video_model(tmp_path):
    image_model = vit()
    torch.save(image_model.state_dict(), tmp_path / "vit.pth")
    model = stvideo.create_model("timesformer_base_patch16_224", num_classes=7, **SIZES)
    with torch.no_grad():
        for block in model.blocks:
            block.temporal_fc.weight.fill_(1.0)
    report = initialize(model, str(tmp_path / "vit.pth"))
    for i, block in enumerate(model.blocks):
        assert torch.equal(block.temporal_attn.qkv.weight, image_model.blocks[i].attn.qkv.weight)
        assert torch.equal(block.temporal_attn.proj.bias, image_model.blocks[i].attn.proj.bias)
        assert torch.equal(block.temporal_norm1.weight, image_model.blocks[i].norm1.weight)
        assert (block.temporal_fc.weight.abs().sum() == 0) == (i > 0)
    assert len(report.copied) == 4 * 6
    assert {name.split(".")[-2] for name in report.missing if "temporal" in name} == {"temporal_fc"}
    assert report.fresh_head
    assert "time_embed" in report.missing


def test_image_weights_in_a_space_only_model_give_the_image_model_frame_by_frame(tmp_path):
    image_model = vit()
    torch.save({"model": image_model.state_dict()}, tmp_path / "vit.pth")
    model = stvideo.create_model("timesformer_base_patch16_224", num_classes=5, attention="space", **SIZES).eval()
    report = initialize(model, str(tmp_path / "vit.pth"))
    assert report.missing == []
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert (model(images) - image_model(images)).abs().max() < 1e-5


def test_a_distilled_deit_leaves_its_second_token_out(tmp_path):
    state = dict(vit().state_dict())
    state["pos_embed"] = torch.cat((state["pos_embed"][:, :1], torch.randn(1, 1, 32), state["pos_embed"][:, 1:]), dim=1)
    state |= {"dist_token": torch.randn(1, 1, 32), "head_dist.weight": torch.randn(5, 32)}
    torch.save({"model": state}, tmp_path / "deit.pth")
    model = stvideo.create_model("timesformer_base_patch16_224", num_classes=5, **SIZES)
    report = initialize(model, str(tmp_path / "deit.pth"))
    assert torch.equal(model.pos_embed[:, 1:], state["pos_embed"][:, 2:])
    assert "dist_token" in report.unexpected


def test_an_unreachable_hub_is_one_clear_line(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    model = stvideo.create_model("timesformer_tiny_patch16_224")
    with pytest.raises(StvideoError, match="init=PATH") as caught:
        initialize(model, "timm:vit_tiny_patch16_224.augreg_in21k")
    assert "\n" not in str(caught.value)
    with pytest.raises(StvideoError, match="timm knows no model"):
        initialize(model, "timm:vit_minuscule")


def test_a_run_folder_means_its_best_and_last_its_newest(tmp_path):
    run = tmp_path / "run"
    for step in (1, 2):
        (run / "checkpoints" / f"step-{step}").mkdir(parents=True)
        save_model(run / "checkpoints" / f"step-{step}" / "model.safetensors", host("divided"), {"step": step})
    (run / "last").symlink_to("checkpoints/step-2")
    assert read_checkpoint(run).metadata["step"] == 2
    (run / "best").symlink_to("checkpoints/step-1")
    assert read_checkpoint(run).metadata["step"] == 1
    assert read_checkpoint(run / "last").metadata["step"] == 2
    assert read_checkpoint(run / "checkpoints" / "step-2").metadata["step"] == 2
    with pytest.raises(StvideoError, match="no checkpoint in this folder"):
        resolve_checkpoint(tmp_path)
    with pytest.raises(StvideoError, match="no such checkpoint"):
        resolve_checkpoint(tmp_path / "nowhere")


class Attack:
    def __reduce__(self):
        import os

        return os.system, ("echo run > /dev/null",)


def _write_text(path):
    path.write_text("not a checkpoint")


def _write_half(path):
    save_file({"a": torch.ones(100)}, path.with_suffix(".safetensors"))
    data = path.with_suffix(".safetensors").read_bytes()
    path.write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda p: p.write_bytes(b""), "empty"),
        (_write_text, "not a PyTorch or safetensors file"),
        (_write_half, "not a readable safetensors file"),
        (lambda p: torch.save({"epoch": 3}, p), "no weights in it"),
        (lambda p: torch.save([1, 2], p), "no weights in it"),
        (lambda p: torch.save({"model": {"x": Attack()}}, p), "refused: .* would run code"),
        (lambda p: p.write_bytes(pickle.dumps(Attack(), protocol=2)), "refused|not a PyTorch"),
        (lambda p: torch.save({"backbone.stem": torch.ones(3)}, p), "no weight in it has a name"),
    ],
    ids=["empty", "text", "half", "no weights", "list", "attack", "plain pickle", "foreign"],
)
def test_what_is_no_checkpoint_is_one_clear_line(tmp_path, write, message):
    write(tmp_path / "bad.pth")
    with pytest.raises(StvideoError, match=message) as caught:
        load_checkpoint(host("divided"), tmp_path / "bad.pth")
    assert "\n" not in str(caught.value)
    assert "bad.pth" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(embed_dim=64), r"cls_token is 1x1x32 in the file and 1x1x64 in the model"),
        (dict(depth=2), "block weights that the model lacks, e.g. blocks.2"),
        (dict(depth=6), "weights are missing, e.g. blocks.4"),
        (dict(attention="space"), "block weights that the model lacks, e.g. blocks.0.temporal"),
        (dict(patch_size=16), "patch_embed.proj.weight is 32x3x8x8 in the file"),
    ],
)
def test_a_checkpoint_for_another_model_says_what_differs(tmp_path, options, message):
    torch.save(host("divided").state_dict(), tmp_path / "w.pth")
    model = stvideo.create_model("timesformer_base_patch16_224", num_classes=7, **{**SIZES, **options})
    with pytest.raises(StvideoError, match=message):
        load_checkpoint(model, tmp_path / "w.pth")


def test_image_weights_are_not_taken_for_a_video_checkpoint(tmp_path):
    torch.save(vit().state_dict(), tmp_path / "vit.pth")
    with pytest.raises(StvideoError, match="init=PATH"):
        load_checkpoint(host("joint", num_classes=5), tmp_path / "vit.pth")


def test_metadata_is_plain_json(tmp_path):
    save_model(tmp_path / "m.safetensors", host("divided"), {"note": "x"})
    from safetensors import safe_open

    with safe_open(tmp_path / "m.safetensors", "pt") as file:
        description = json.loads(file.metadata()["stvideo"])
    assert description["model"]["arguments"]["num_frames"] == 4
