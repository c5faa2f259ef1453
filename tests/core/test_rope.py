"""Rotary positions against their textbook form, one token and one pair of channels at a time."""

import cmath
import math

import pytest
import torch

from stvideo import StvideoError
from stvideo.core.rope import KINDS, Rope, patch_coordinates

DIM, GRID = 20, (3, 4, 5)


def turned(x, angles, pairs):
    """One vector of d channels: every pair is a complex number times exp(i angle). ``angles`` has one per channel."""
    out = x.clone()
    for a, b in pairs:
        # The released V-JEPA 2 gives the two channels of a pair different angles, so that this is no pure rotation.
        out[a] = (complex(x[a], x[b]) * cmath.exp(1j * angles[a])).real
        out[b] = (complex(x[a], x[b]) * cmath.exp(1j * angles[b])).imag
    return out


def axial(x, t, y, x_, size):
    quarter = DIM // 4
    angles = []
    for place, length in ((y, size[1]), (x_, size[2])):
        normal = 2 * (place + 0.5) / length - 1
        angles += [2 * math.pi * normal / 100 ** (4 * i / DIM) for i in range(quarter)]
    return turned(x, angles * 2, [(i, i + DIM // 2) for i in range(DIM // 2)])


def vjepa2(x, t, y, x_, trained, size):
    third = 2 * (DIM // 3 // 2)
    angles = []
    for place in (t, y * trained[0] / size[1], x_ * trained[1] / size[2]):
        half = [place / 10000 ** (i / (third / 2)) for i in range(third // 2)]
        angles += half * 2
    angles += [0.0] * (DIM - len(angles))
    return turned(x, angles, [(i, i + 1) for i in range(0, DIM, 2)])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("trained", [(4, 5), (8, 8)])
def test_every_token_turns_by_its_own_place(kind, trained):
    torch.manual_seed(0)
    rope = Rope(kind, DIM, trained)
    place = torch.stack([torch.randperm(60)[:14].view(2, 7) for _ in range(3)])
    place[:, :, 0] = -1  # a prefix token
    place[1, 1, 5] = -3  # a fused one
    x = torch.randn(3 * 2, 2, 7, DIM)
    out = rope.rotate(x, place, GRID, GRID)
    for row, places in enumerate(place.flatten(0, 1)):
        for n, at in enumerate(places.tolist()):
            for head in range(2):
                vector = x[row, head, n]
                where = (at // 20, at // 5 % 4, at % 5)
                expected = vector
                if at >= 0:
                    expected = axial(vector, *where, GRID) if kind == "axial" else vjepa2(vector, *where, trained, GRID)
                torch.testing.assert_close(out[row, head, n], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_one_row_of_places_serves_the_batch(kind):
    rope, x = Rope(kind, DIM, (4, 5)), torch.randn(3 * 2, 2, 7, DIM)
    place = torch.randint(-1, 60, (1, 2, 7))
    assert torch.equal(rope.rotate(x, place, GRID, GRID), rope.rotate(x, place.expand(3, -1, -1), GRID, GRID))
    assert rope.rotate(x.bfloat16(), place, GRID, GRID).dtype == torch.bfloat16


def test_semantic_tokens_are_at_the_centres_of_their_windows():
    frames, rows, columns = patch_coordinates(torch.arange(8), (2, 2, 2), (4, 14, 6))
    assert frames.tolist() == [0.5] * 4 + [2.5] * 4
    assert rows.tolist() == [3.0, 3.0, 10.0, 10.0] * 2
    assert columns.tolist() == [1.0, 4.0] * 4


@pytest.mark.parametrize(("kind", "dim"), [("axial", 6), ("axial", 4), ("vjepa2", 5)])
def test_a_head_too_small_is_one_clear_line(kind, dim):
    with pytest.raises(StvideoError, match=f"must have .* channels, not {dim}"):
        Rope(kind, dim, (4, 4))
