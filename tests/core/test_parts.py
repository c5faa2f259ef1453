"""Named parts: silent until somebody listens, and then heard in their order."""

from contextlib import contextmanager

import pytest
import torch

import stvideo
from stvideo.core.parts import listening, part


@part("outer")
def outer(x):
    """Adds one, and what inner adds."""
    return inner(x) + 1


@part("inner", reduction=True)
def inner(x):
    return x + 10


def test_parts_are_heard_while_somebody_listens():
    heard = []

    @contextmanager
    def listener(name, reduction):
        heard.append((name, reduction))
        yield
        heard.append(name)

    assert (outer(1), heard) == (12, [])
    with listening(listener):
        assert outer(1) == 12
    assert heard == [("outer", False), ("inner", True), "inner", "outer"]
    with pytest.raises(ZeroDivisionError), listening(listener):
        raise ZeroDivisionError
    outer(1)
    assert len(heard) == 4
    assert outer.__doc__ == "Adds one, and what inner adds."


def test_compiled_graphs_have_no_trace_of_them():
    model = stvideo.create_model(
        "timesformer_tiny_patch16_224", embed_dim=32, depth=2, num_heads=2, img_size=32, num_frames=2,
        reduction={"evit": dict(layers=[0], keep_rate=0.5)},
    ).eval()  # fmt: skip
    clip = torch.randn(1, 3, 2, 32, 32)
    with torch.no_grad():
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        assert torch.allclose(compiled(clip), model(clip), atol=1e-5)
