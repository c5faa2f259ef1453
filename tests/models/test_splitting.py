"""No model of any family, with any reduction, shows how a batch was cut: a batch equals its clips one by one."""

import pytest
import torch

from stvideo.models import vit
from tests.export_cases import CASES


@pytest.mark.parametrize("case", CASES)
def test_a_batch_equals_its_clips(case, monkeypatch):
    model = CASES[case]()
    clips = torch.randn(5, *model.example_shape()[1:])
    with torch.no_grad():
        alone = torch.cat([model(clip[None]) for clip in clips])
        for cached in (1, 200_000):
            monkeypatch.setattr(vit, "CACHED_BYTES", cached)
            assert torch.allclose(model(clips), alone, atol=1e-5), cached
            logits, _ = model(clips, return_trace=True)
            assert torch.allclose(logits, alone, atol=1e-5), cached
