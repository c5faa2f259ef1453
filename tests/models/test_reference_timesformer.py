"""The plain textbook TimeSformer that the benchmark races computes the same as ours."""

import pytest
import torch

from tests.models.test_timesformer import small
from tests.reference_timesformer import ReferenceTimeSformer


@pytest.mark.parametrize("size", [dict(img_size=(32, 48), num_frames=4), dict(img_size=(24, 24), num_frames=1)])
def test_same_logits_from_the_same_weights(size):
    sizes = dict(embed_dim=32, depth=3, num_heads=4, patch_size=8, num_classes=7, **size)
    model = small("divided", **size)
    reference = ReferenceTimeSformer(**sizes).eval()
    reference.load_state_dict(model.state_dict(), strict=True)
    clip = torch.randn(2, 3, size["num_frames"], *size["img_size"])
    with torch.no_grad():
        assert (model(clip) - reference(clip)).abs().max() < 1e-4
