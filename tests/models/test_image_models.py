"""DeiT, LV-ViT and live timm models: parity with the authors' outputs and with timm."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

import stvideo
from stvideo import StvideoError, from_timm
from tests.parity.reference_weights import reference_clip, reference_state_dict

PARITY = Path(__file__).parents[1] / "parity"


def kept_tokens(before, after, count):
    """Positions of the kept tokens in the sequence that entered a layer. (T, H, W) ids before and after -> a set."""
    pairs = zip(before.flatten().tolist(), after.flatten().tolist(), strict=True)
    return {old for old, new in pairs if 0 <= new < count}


@pytest.mark.parametrize(("fuse", "name"), [(True, "fuse"), (False, "drop")])
def test_evit_deit_small_equals_the_authors_code(tmp_path, fuse, name):
    state = reference_state_dict(json.loads((PARITY / "evit_deit_small.keys.json").read_text()))
    torch.save({"model": state, "epoch": 29}, tmp_path / "evit.pth")
    expected = np.load(PARITY / f"evit_deit_small_keep0.7_{name}_224.npz")
    model = stvideo.create_model(
        "evit_deit_small_patch16_224", keep_rate=0.7, fuse=fuse, checkpoint=tmp_path / "evit.pth"
    ).eval()
    with torch.no_grad():
        logits, trace = model(reference_clip(2, 3, 224, 224), return_trace=True)
    assert np.abs(logits.numpy() - expected["logits"]).max() < 1e-4
    previous = torch.arange(196).view(1, 1, 14, 14).expand(2, -1, -1, -1)
    for i, layer in enumerate((3, 6, 9)):
        kept = expected[f"idx{i}"]
        for b in range(2):
            assert kept_tokens(previous[b], trace.assign[layer][b], kept.shape[1]) == set(kept[b].tolist())
            # In their order our scores fall too, but for ties in the last bits.
            score = dict(zip(previous[b].flatten().tolist(), trace.score[layer][b].flatten().tolist(), strict=True))
            falling = [score[index] for index in kept[b].tolist()]
            assert all(later <= earlier + 1e-8 for earlier, later in itertools.pairwise(falling))
        previous = trace.assign[layer]


def timm_vit(**options):
    torch.manual_seed(4)
    sizes = dict(img_size=32, patch_size=8, embed_dim=32, depth=4, num_heads=4, num_classes=6)
    model = timm.models.VisionTransformer(**{**sizes, **options})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize(
    "options",
    [{}, dict(init_values=0.1), dict(qk_norm=True), dict(qkv_bias=False), dict(mlp_ratio=3), dict(num_classes=0)],
    ids=str,
)
def test_a_live_timm_vit_gives_the_same_logits_and_takes_reductions(options):
    source = timm_vit(**options)
    model = from_timm(source)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = source(images)
        assert (model(images) - expected).abs().max() < 1e-5
        stvideo.apply_reduction(model, "evit", keep_rate=1.0, layers=(0, 2))
        assert (model(images) - expected).abs().max() < 1e-5
        stvideo.apply_reduction(model, "evit", keep_rate=0.5, layers=(0, 2))
        assert (model(images) - expected).abs().max() > 1e-4


def test_the_real_deit_of_timm():
    source = timm.create_model("deit_small_patch16_224").eval()
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        assert (from_timm(source)(images) - source(images)).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: torch.nn.Linear(2, 2), "not a timm VisionTransformer"),
        (lambda: timm_vit(global_pool="avg"), "pools by 'avg'"),
        (lambda: timm_vit(reg_tokens=4), "one class token"),
        (lambda: timm_vit(class_token=False, global_pool="avg"), "one class token"),
        (lambda: timm_vit(act_layer=torch.nn.ReLU), "computes something"),
        (lambda: timm_vit(pre_norm=True), "no plain ViT"),
        (lambda: timm.create_model("deit_tiny_distilled_patch16_224", img_size=32), "one class token"),
    ],
)
def test_what_is_no_plain_vit_is_refused(build, message):
    with pytest.raises(StvideoError, match=message) as caught:
        from_timm(build())
    assert "\n" not in str(caught.value)


def test_lvvit_adds_half_the_best_patch_to_the_class_token():
    torch.manual_seed(0)
    model = stvideo.create_model(
        "lvvit_small_patch16_224", embed_dim=32, depth=4, num_heads=4, img_size=64, num_classes=5
    ).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        tokens = model.forward_features(images)
        cls = model.head(model.norm(tokens.prefix[:, 0, 0]))
        patches = model.aux_head(model.norm(tokens.patches[:, 0]))
        assert torch.allclose(model(images), cls + 0.5 * patches.max(1).values, atol=1e-6)
        assert tokens.patches.shape == (2, 1, 16, 32)
    assert sum(p.numel() for p in stvideo.create_model("lvvit_small_patch16_224").parameters()) == 26_151_824


def test_lvvit_halves_its_residual_branches():
    block = stvideo.create_model("lvvit_small_patch16_224", embed_dim=32, depth=1, num_heads=4, img_size=32).blocks[0]
    assert block.attn.qkv.bias is None
    x = torch.randn(1, 1, 4, 32)
    tokens = stvideo.Tokens(patches=x, prefix=x[:, :, :0], grid=(1, 2, 2))
    with torch.no_grad():
        out = block.feed_forward(tokens).patches
        assert torch.allclose(out, x + block.mlp(block.norm2(x)) / 2, atol=1e-6)


def test_image_models_take_images_and_clips_of_one_frame():
    model = stvideo.create_model("stvit_deit_tiny_patch16_224", num_classes=4, num_semantic_tokens=36).eval()
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        logits, trace = model(image, return_trace=True)
        assert torch.equal(logits, model(image.unsqueeze(2)))
    assert trace.assign["output"].shape == (1, 1, 14, 14)
    assert int(trace.assign["output"].max()) < 36


@pytest.mark.parametrize(("count", "message"), [(17, "try 16 or 25"), (0, "no square grid"), (400, "larger than")])
def test_semantic_token_counts_make_a_square_grid(count, message):
    with pytest.raises(StvideoError, match=message):
        stvideo.create_model("stvit_deit_tiny_patch16_224", num_semantic_tokens=count)


def test_tokens_instead_of_rates():
    model = stvideo.create_model("evit_deit_tiny_patch16_224", tokens=[100, 50, 9], fuse=False, num_classes=2).eval()
    with torch.no_grad():
        _, trace = model(torch.randn(1, 3, 224, 224), return_trace=True)
    assert [int((trace.assign[layer] >= 0).sum()) for layer in (3, 6, 9)] == [100, 50, 9]
    for options in (dict(tokens=[5]), dict(tokens=0), dict(tokens=3, keep_rate=0.5)):
        with pytest.raises(StvideoError):
            stvideo.create_model("evit_deit_tiny_patch16_224", **options)
