"""Rotary positions: queries and keys are rotated by angles that grow with their token's place in the clip.

Su et al., "RoFormer", arXiv 2104.09864. Angles come from every token's own place (`Tokens.index`), so that they stay
right whatever a reduction has removed, moved or merged.

Shapes: B clips, F groups, L tokens of a group, h heads, d channels per head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from stvideo.core.errors import StvideoError

Grid = tuple[int, int, int]
KINDS = ("axial", "vjepa2")


@dataclass(frozen=True)
class Rope:
    """Rotary positions of a model.

    Attributes:
        kind: ``axial`` (DINOv3, arXiv 2508.10104): rows and columns of the frame, normalised to [-1, 1]; channel i is
            paired with i + d/2. ``vjepa2`` (V-JEPA 2, arXiv 2506.09985): time, rows and columns, a third of the
            channels each; neighbours are paired, yet angles repeat in halves, as in the code that trained the released
            weights.
        head_dim: d.
        grid: (H, W) patches at the training size; with ``vjepa2`` other sizes are rescaled to it.
    """

    kind: Literal["axial", "vjepa2"]
    head_dim: int
    grid: tuple[int, int]

    def __post_init__(self) -> None:
        if (self.kind == "axial" and self.head_dim % 4) or self.head_dim < 6:
            wanted = "a multiple of 4, at least 8" if self.kind == "axial" else "at least 6"
            raise StvideoError(f"rope {self.kind!r}: a head must have {wanted} channels, not {self.head_dim}")

    def rotate(self, x: Tensor, place: Tensor, grid: Grid, extent: Grid) -> Tensor:
        """Rotate queries or keys by the angles of their tokens.

        Args:
            x: (B F, h, L, d).
            place: (B or 1, F, L) int64, flat places on ``grid``; negative ones (prefix and fused tokens) do not rotate.
            grid: (t, h, w) on which ``place`` counts.
            extent: (T, H, W) of the patches; a semantic token is at the centre of its window.

        Returns:
            (B F, h, L, d) in the type of ``x``.
        """
        at = patch_coordinates(place, grid, extent)
        if self.kind == "axial":
            angle, partner = axial_angles(at, extent, self.head_dim), half_partner
        else:
            rows, columns = (own / given for own, given in zip(self.grid, extent[1:], strict=True))
            angle = vjepa2_angles([at[0], at[1] * rows, at[2] * columns], self.head_dim)
            partner = pair_partner
        angle = angle.masked_fill(place.unsqueeze(-1) < 0, 0.0).unsqueeze(2)
        groups = x.unflatten(0, (-1, place.shape[1]))
        return (groups * angle.cos().to(x.dtype) + partner(groups) * angle.sin().to(x.dtype)).flatten(0, 1)


def patch_coordinates(place: Tensor, grid: Grid, extent: Grid) -> list[Tensor]:
    """Locate the centres of cells of ``grid`` in patches of ``extent``: frame, row and column, each (...) float32."""
    _, rows, columns = grid
    cells = (place // (rows * columns), place // columns % rows, place % columns)
    steps = [length / count for length, count in zip(extent, grid, strict=True)]
    return [(cell + 0.5) * step - 0.5 for cell, step in zip(cells, steps, strict=True)]


def axial_angles(at: Sequence[Tensor], extent: Grid, dim: int, theta: float = 100.0) -> Tensor:
    """Compute DINOv3's angles of coordinates in patches. (...) each -> (..., dim): rows, columns, and both again."""
    rate = 2.0 * math.pi * theta ** -(torch.arange(dim // 4, device=at[0].device) * 4 / dim)
    normal = [2.0 * (x + 0.5) / length - 1.0 for x, length in zip(at[1:], extent[1:], strict=True)]
    return torch.cat([x.unsqueeze(-1) * rate for x in normal] * 2, dim=-1)


def vjepa2_angles(at: Sequence[Tensor], dim: int, theta: float = 10000.0) -> Tensor:
    """Compute V-JEPA 2's angles of coordinates in patches. (...) each -> (..., dim); the rest do not rotate."""
    third = dim // 3 // 2
    rate = theta ** -(torch.arange(third, device=at[0].device) / third)
    angles = [x.unsqueeze(-1) * rate for x in at for _ in range(2)]
    return F.pad(torch.cat(angles, dim=-1), (0, dim - 6 * third))


def half_partner(x: Tensor) -> Tensor:
    """Rotate the pairs (i, i + d/2) of the last axis by a right angle: (a, b) -> (-b, a)."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


def pair_partner(x: Tensor) -> Tensor:
    """Rotate neighbouring channels of the last axis by a right angle: (a, b, ...) -> (-b, a, ...).

    An odd last channel, which never rotates, has none.
    """
    even = x.shape[-1] // 2 * 2
    pairs = x[..., :even].unflatten(-1, (-1, 2))
    turned = torch.stack((-pairs[..., 1], pairs[..., 0]), dim=-1).flatten(-2)
    return F.pad(turned, (0, x.shape[-1] - even))
