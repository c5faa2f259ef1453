"""A trace alone says what to draw, whatever method wrote it."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stvideo.core.errors import StvideoError
from stvideo.core.trace import TokenTrace
from stvideo.drawing.colors import PALETTE
from stvideo.drawing.states import DROPPED, FUSED, KEPT, SHARED, layer_states
from tests.properties import unhurried
from tests.token_traces import CPU, dense_trace, keep_trace, semantic_trace


def oklab(rgb: np.ndarray) -> np.ndarray:
    """sRGB (..., 3) uint8 to OKLab (Ottosson 2020), in which equal steps look about equally large."""
    linear = np.where(rgb <= 0.04045 * 255, rgb / 255 / 12.92, ((rgb / 255 + 0.055) / 1.055) ** 2.4)
    to_lms = [[0.41222, 0.53633, 0.05145], [0.21190, 0.68070, 0.10740], [0.08830, 0.28172, 0.62998]]
    to_lab = [[0.21045, 0.79362, -0.00407], [1.97800, -2.42859, 0.45059], [0.02590, 0.78277, -0.80868]]
    return np.cbrt(linear @ np.transpose(to_lms)) @ np.transpose(to_lab)


def kept_mask(seed: int, t: int = 3, h: int = 4, w: int = 5) -> torch.Tensor:
    return torch.rand(t, h, w, generator=torch.Generator().manual_seed(seed)) < 0.6


@pytest.mark.parametrize("fuse", [True, False])
def test_kept_fused_and_dropped_patches(fuse):
    kept = kept_mask(0)
    (states,) = layer_states(keep_trace(kept, fuse))
    assert states.is_output and states.layer == 3 and states.method == "evit"
    assert np.array_equal(states.state == KEPT, kept.numpy())
    assert np.array_equal(states.state == (FUSED if fuse else DROPPED), ~kept.numpy())
    assert states.num_tokens == int(kept.sum()) + (3 if fuse else 0)
    assert states.reduces


def test_a_dense_model_has_one_row_in_which_all_is_kept():
    (states,) = layer_states(dense_trace(2, 3, 3))
    assert states.layer == "output" and not states.reduces and (states.state == KEPT).all()


def test_semantic_tokens_are_shared_and_keep_their_colour_in_every_frame():
    (states,) = layer_states(semantic_trace(4, 8, 8, (2, 4, 4)))
    assert (states.state == SHARED).all() and states.num_tokens == 32
    for token in np.unique(states.token):
        assert len(np.unique(states.color[states.token == token], axis=0)) == 1


def test_neighbouring_semantic_tokens_look_different():
    (states,) = layer_states(semantic_trace(8, 14, 14, (8, 4, 4)))
    for axis in range(3):
        here, there = np.delete(states.token, 0, axis), np.delete(states.token, -1, axis)
        color, other = np.delete(states.color, 0, axis), np.delete(states.color, -1, axis)
        distance = np.linalg.norm(oklab(color) - oklab(other), axis=-1)
        assert distance[here != there].min() > 0.08, axis


def test_palette_entries_are_distinct():
    lab = oklab(PALETTE)
    distance = np.linalg.norm(lab[:, None] - lab[None], axis=-1)[~np.eye(len(lab), dtype=bool)]
    assert distance.min() > 0.03


def test_a_semantic_token_of_a_single_patch_is_coloured_too_until_the_patches_come_back():
    trace = TokenTrace.start(1, (1, 2, 3), CPU)
    before = trace.snapshot()
    trace.record(4, "stgm", torch.tensor([[0, 0, 1, 1, 1, 2]]), kind="semantic")
    trace.record(5, "evit", torch.tensor([[-1, 0, 1]]))
    trace.restore(before)
    trace.repeat(6, "recovery")
    semantic, fewer, recovered = layer_states(trace.finish())
    assert (semantic.state == SHARED).all()
    assert fewer.state.ravel().tolist() == [DROPPED, DROPPED, *[SHARED] * 4]
    assert (recovered.state == KEPT).all() and recovered.is_output


def test_merged_tokens_share_a_colour_and_single_patches_stay_their_own():
    """However many are merged: what became of a patch does not depend on the others."""
    trace = TokenTrace.start(1, (1, 2, 4), CPU)
    trace.record("embed", "rlt", torch.tensor([[0, 1, 2, 3, 4, 5, 6, 6]]), kind="merge")
    trace.record(1, "tome", torch.tensor([[0, 0, 1, 1, 2, 3, 3]]), kind="merge")
    first, second = layer_states(trace.finish())
    assert [first.name, second.name] == ["embed", "layer 1"]
    assert first.state.ravel().tolist() == [*[KEPT] * 6, SHARED, SHARED]
    assert second.state.ravel().tolist() == [*[SHARED] * 4, KEPT, *[SHARED] * 3]
    colors = second.color.reshape(-1, 3)
    assert len(np.unique(colors[[0, 2, 5]], axis=0)) == 3 and not colors[4].any()
    assert np.array_equal(colors[0], colors[1]) and np.array_equal(colors[5], colors[7])


def test_a_colour_goes_on_through_later_layers():
    trace = TokenTrace.start(1, (1, 4, 4), CPU)
    trace.record(2, "stgm", (torch.arange(16) // 4)[None], kind="semantic")
    trace.record(5, "evit", torch.tensor([[1, -1, 0, 2]]))
    first, second = layer_states(trace.finish())
    alive = second.token >= 0
    assert np.array_equal(second.color[alive], first.color[alive])
    assert (second.state[~alive] == DROPPED).all() and not first.is_output and second.is_output


def test_many_fused_tokens_of_a_frame_get_a_colour_each():
    trace = TokenTrace.start(1, (1, 4, 4), CPU)
    trace.record(1, "merge", (torch.arange(16) // 2)[None], fused=torch.ones(1, 16, dtype=torch.bool))
    (states,) = layer_states(trace.finish())
    assert (states.state == FUSED).all()
    assert len(np.unique(states.color.reshape(-1, 3), axis=0)) == 8


def test_recovery_gives_an_output_row_of_its_own():
    trace = TokenTrace.start(1, (1, 4, 4), CPU)
    trace.record(2, "stgm", (torch.arange(16) // 4)[None], kind="semantic")
    own = torch.arange(16).view(1, 1, 4, 4)
    for layer in (6, "output"):
        trace.assign[layer], trace.fused[layer], trace.method[layer] = own, torch.zeros_like(own) > 0, "recovery"
    rows = layer_states(trace)
    assert [row.layer for row in rows] == [2, 6] and rows[1].is_output and not rows[1].reduces


@unhurried
@given(st.integers(0, 10_000), st.booleans(), st.integers(0, 1))
def test_every_patch_has_exactly_one_state(seed, fuse, clip):
    kept = torch.stack([kept_mask(seed), kept_mask(seed + 1)])
    traces = [keep_trace(k, fuse) for k in kept]
    both = TokenTrace(*({3: torch.cat([getattr(t, name)[3] for t in traces])} for name in ("assign", "fused")))
    (states,) = layer_states(both, clip)
    assert np.array_equal(states.state == KEPT, kept[clip].numpy())
    assert ((states.token == -1) == (states.state == DROPPED)).all()


def test_errors_say_what_is_wrong():
    with pytest.raises(StvideoError, match="return_trace"):
        layer_states(TokenTrace())
    with pytest.raises(StvideoError, match="clips 0 to 0, not clip 3"):
        layer_states(dense_trace(1, 2, 2), clip=3)


def test_time_steps_of_a_model_whose_patches_span_frames():
    """Step t of the trace covers frames tubelet_size * t and the following ones."""
    kept = torch.zeros(2, 2, 2, dtype=torch.bool)
    kept[1, 0, 1] = True
    (states,) = layer_states(keep_trace(kept, False), tubelet_size=3)
    assert [states.step_of(frame) for frame in range(6)] == [0, 0, 0, 1, 1, 1]
    lit = [(states.state[states.step_of(frame)] == KEPT).nonzero() for frame in range(6)]
    assert [len(rows) for rows, _ in lit] == [0, 0, 0, 1, 1, 1]
    with pytest.raises(StvideoError, match=r"frame 6: the trace covers 2 x 3 frames; .*tubelet_size"):
        states.step_of(6)


def test_one_entry_alone_is_read_as_among_all():
    trace = semantic_trace(2, 4, 4, (1, 2, 2), layer=1)
    trace.record(3, "evit", torch.tensor([[0, -1, 1, -1]]))
    for wanted in (1, 3):
        (alone,) = layer_states(trace, only=wanted)
        among = next(row for row in layer_states(trace) if row.layer == wanted)
        assert alone.layer == wanted and np.array_equal(alone.state, among.state)
