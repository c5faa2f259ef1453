"""Names: every one builds, timm knows the new ones, wrong ones are told apart from right ones."""

import pytest
import timm
import torch

import stvideo
from stvideo import StvideoError


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
