"""What every backbone offers, on one model of each family."""

import pytest
import torch

import stvideo
from stvideo import StvideoError
from stvideo.models.base import Backbone
from tests.models.swin_small import TINY
from tests.reduction.hosts import host

VIT = dict(embed_dim=32, depth=4, num_heads=4, img_size=64, num_classes=7)
MODELS = {
    "timesformer": lambda: host(),
    "deit": lambda: stvideo.create_model("deit_tiny_patch16_224", **VIT),
    "deit_avg": lambda: stvideo.create_model("deit_tiny_patch16_224_avg", **VIT),
    "lvvit": lambda: stvideo.create_model("lvvit_small_patch16_224", **VIT),
    "swin": lambda: stvideo.create_model("swin_tiny_patch4_window7_224", **TINY, img_size=64),
}


@pytest.fixture(params=MODELS)
def model(request):
    torch.manual_seed(0)
    return MODELS[request.param]().eval()


def test_tokens_in_tokens_out(model):
    clip = torch.randn(model.example_shape())
    with torch.no_grad():
        tokens = model.forward_features(clip)
        assert torch.equal(model.forward_head(tokens), model(clip))
        assert model.forward_head(tokens, pre_logits=True).shape == (1, model.embed_dim)
        rows, trace, feature = model.token_features(clip)
        assert torch.equal(feature, model.forward_head(tokens, pre_logits=True))
    assert rows.shape[1] == int(trace.assign["output"].max()) + 1
    assert isinstance(model, Backbone) and len(model.reductions) == 0


def test_another_head(model):
    model.classes = ["a"] * 7
    model.to(torch.float64).reset_classifier(3)
    clip = torch.randn(model.example_shape(), dtype=torch.float64)
    assert model(clip).shape == (1, 3)
    assert (model.num_classes, model.classes, model.get_classifier()) == (3, [], model.head)
    assert stvideo.create_model(model.spec["name"], **model.spec["arguments"])(clip.float()).shape == (1, 3)
    for wrong in (dict(num_classes=-1), dict(num_classes=2, global_pool="map")):
        with pytest.raises(StvideoError, match=r"reset_classifier|LV-ViT"):
            model.reset_classifier(**wrong)


@pytest.mark.parametrize(
    "clip", ["clip", torch.zeros(3, 64, 64), torch.zeros(1, 4, 1, 64, 64), torch.zeros(0, 3, 64, 64)]
)
def test_wrong_clips_are_one_clear_line(model, clip):
    with pytest.raises(StvideoError, match="expected a clip") as caught:
        model(clip)
    assert "\n" not in str(caught.value)


def test_image_weights_become_video_weights():
    model, image = MODELS["timesformer"](), MODELS["deit"]().state_dict()
    state = model.prepare_image_state(dict(image))
    assert torch.equal(state["blocks.2.temporal_attn.qkv.weight"], image["blocks.2.attn.qkv.weight"])
    assert torch.equal(state["blocks.0.temporal_norm1.bias"], image["blocks.0.norm1.bias"])
    assert not model.blocks[1].temporal_fc.weight.any() and model.blocks[0].temporal_fc.weight.any()
    assert model.prepare_image_state(state) is state
