"""Names: every one builds, timm knows the new ones, wrong ones are told apart from right ones."""

import pytest
import timm
import torch

import stvideo
from stvideo import StvideoError
from stvideo.models import registry
from stvideo.models.vit import VisionTransformer


@pytest.mark.parametrize("name", stvideo.list_models())
def test_every_named_model_builds_and_runs(name):
    with torch.device("meta"):
        model = stvideo.create_model(name, num_classes=5).eval()
    with torch.no_grad():
        assert model(torch.empty(model.example_shape(), device="meta")).shape == (1, 5)


def test_timm_knows_our_names_and_keeps_its_own():
    for name in stvideo.list_models():
        assert timm.is_model(name)
    model = timm.create_model("stvit_timesformer_tiny_patch16_224", num_classes=5)
    assert list(model.reductions) == ["stgm"]
    assert type(timm.create_model("vit_tiny_patch16_224")).__module__.startswith("timm.")
    with pytest.raises(StvideoError, match="checkpoint=PATH"):
        timm.create_model("stvit_timesformer_tiny_patch16_224", pretrained=True)


def test_a_variant_takes_its_reductions_keywords():
    model = stvideo.create_model(
        "evit_timesformer_tiny_patch16_224", keep_rate=0.5, fuse=False, layers=(2,), num_classes=3
    )
    assert model.reductions["evit"].options == dict(keep_rate=0.5, fuse=False, layers=(2,))
    with pytest.raises(StvideoError, match="not both"):
        stvideo.create_model("evit_timesformer_tiny_patch16_224", keep_rate=0.5, reduction="random")
    with torch.device("meta"):
        large = stvideo.create_model("stvit_timesformer_large_patch16_224")
    assert large.reductions["stgm"].layers == (8, 9)


def test_a_backbone_from_outside(monkeypatch):
    """A ViT with four register tokens that adds its own mean to the feature, as a plugin would write it."""
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))

    class RegisterViT(VisionTransformer):
        def pool(self, tokens):
            return super().pool(tokens) + self.norm(tokens.prefix[:, :, 1:]).mean(dim=(1, 2))

    shape = dict(img_size=32, patch_size=8, embed_dim=32, depth=4, num_heads=4, num_registers=4)
    for _ in range(2):  # its module may be imported again
        stvideo.register_model(stvideo.ModelEntry("vit_reg4", RegisterViT, shape))
    assert "vit_reg4" in stvideo.list_models()
    dense = stvideo.create_model("vit_reg4", num_classes=3, num_frames=2).eval()
    clip = torch.randn(2, 3, 2, 32, 32)
    with torch.no_grad():
        assert dense(clip).shape == (2, 3) and dense.forward_features(clip).num_prefix == 5
        reduced = stvideo.apply_reduction(dense, "evit", keep_rate=0.5, layers=(1,), fuse=False)
        assert reduced.forward_features(clip).patches.shape == (2, 1, 16, 32)
        assert reduced.attention_maps(clip, 2).shape == (2, 4, 2, 4, 4)
    with pytest.raises(StvideoError, match="exists already"):
        stvideo.register_model(stvideo.ModelEntry("vit_reg4", VisionTransformer))


def test_reduction_as_name_or_mapping():
    for reduction in ("evit", {"evit": None}, {"evit": {}}):
        model = stvideo.create_model("timesformer_tiny_patch16_224", reduction=reduction, num_classes=3)
        assert model.reductions["evit"].layers == (3, 6, 9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stvideo.create_model("timesformer_bas"), "unknown model 'timesformer_bas' .did you mean"),
        (lambda: stvideo.create_model("timesformer_tiny_patch16_224", reduction="evti"), "did you mean 'evit'"),
        (lambda: stvideo.create_model("timesformer_tiny_patch16_224", reduction=3), "a name or"),
        (lambda: stvideo.create_model("timesformer_tiny_patch16_224", reduction={"evit": 0.7}), "must be a mapping"),
        (lambda: stvideo.create_model("timesformer_tiny_patch16_224", dropout=1), "unknown argument 'dropout'"),
        (lambda: stvideo.apply_reduction(torch.nn.Linear(2, 2), "evit"), "takes no token reductions"),
    ],
)
def test_wrong_names_are_one_clear_line(call, message):
    with pytest.raises(StvideoError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
