"""The plain TimeSformer that the benchmark races computes the same as ours."""

import pytest
import torch

import stvideo
from stvideo.benchmarks.textbook import Textbook, has_textbook
from tests.models.test_timesformer import small


@pytest.mark.parametrize("size", [dict(img_size=(32, 48), num_frames=4), dict(img_size=(24, 24), num_frames=1)])
def test_same_logits_from_the_same_weights(size):
    model = small("divided", **size)
    clip = torch.randn(2, 3, size["num_frames"], *size["img_size"])
    with torch.no_grad():
        assert (model(clip) - Textbook(model)(clip)).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("name", "options", "has"),
    [
        ("timesformer_tiny_patch16_224", {}, True),
        ("timesformer_tiny_patch16_224", dict(drop_path_rate=0.1, img_size=32), True),
        ("timesformer_tiny_patch16_224", dict(reduction="evit"), False),
        ("timesformer_tiny_patch16_224", dict(attention="joint"), False),
        ("timesformer_tiny_patch16_224", dict(layer_scale=0.1), False),
        ("deit_tiny_patch16_224", {}, False),
    ],
)
def test_which_models_have_it(name, options, has):
    with torch.device("meta"):
        assert has_textbook(stvideo.create_model(name, **options)) == has
