"""The forms of a model: all of them compute the same."""

import pytest
import torch

from stvideo.benchmarks.candidates import parse_candidates
from stvideo.benchmarks.entrants import enter

TINY = "embed_dim=32 depth=2 num_heads=2 img_size=32 num_frames=2 num_classes=3"


@pytest.mark.parametrize("form", ["eager", "optimized", "exported", "onnx", "textbook"])
def test_every_form_computes_the_same(form):
    (candidate,) = parse_candidates([f"timesformer_tiny_patch16_224 {TINY}"])
    model = candidate.build({})
    (entrant,) = enter(candidate, model, [form], precision="fp32", device=torch.device("cpu"))
    clip = torch.randn(3, *entrant.clip_shape)
    with torch.inference_mode():
        assert torch.allclose(entrant.step()(clip), model.eval()(clip), atol=1e-4)
    assert entrant.form == form
