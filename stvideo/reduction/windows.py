"""Windows over a token grid: which patch belongs to which cluster centre. Pure functions."""

from __future__ import annotations

import torch
from torch import Tensor

from stvideo.core.tokens import Tokens


def adaptive_bins(length: int, count: int) -> list[tuple[int, int]]:
    """Cut ``length`` cells into ``count`` bins: bin i is floor(i L / n) to ceil((i + 1) L / n), end exclusive.

    The bins cover every cell, and neighbours overlap by at most one.
    """
    return [(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]


def bin_membership(length: int, count: int, device: torch.device) -> Tensor:
    """Mark the cells of each bin of `adaptive_bins`, (count, length) bool."""
    cell = torch.arange(length, device=device)
    rows = [(cell >= start) & (cell < stop) for start, stop in adaptive_bins(length, count)]
    return torch.stack(rows)


def space_membership(grid: tuple[int, int], bins: tuple[int, int], device: torch.device) -> Tensor:
    """Mark the cells of the (H, W) ``grid`` in each window of the (h, w) ``bins``, (h*w, H*W) bool."""
    rows = bin_membership(grid[0], bins[0], device)
    columns = bin_membership(grid[1], bins[1], device)
    return (rows[:, None, :, None] & columns[None, :, None, :]).flatten(2).flatten(0, 1)


def slot_frames(frames: int, slots: int, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """List the frames of each time slot.

    Returns:
        frame numbers (t, L) int64, padded by repeating the last one where slots differ in length, and
        (t, L) bool, False on the padding; None where there is no padding.
    """
    bins = adaptive_bins(frames, slots)
    longest = max(stop - start for start, stop in bins)
    numbers = [[min(start + i, stop - 1) for i in range(longest)] for start, stop in bins]
    valid = [[start + i < stop for i in range(longest)] for start, stop in bins]
    table = torch.tensor(numbers, device=device)
    return table, None if all(map(all, valid)) else torch.tensor(valid, device=device)


def scatter_to_grid(tokens: Tokens) -> Tensor:
    """Put patch tokens on their (T, H, W) grid, zero where none is left. Returns (B, T, H, W, C)."""
    batch, dim = tokens.patches.shape[0], tokens.patches.shape[-1]
    frames, height, width = tokens.grid
    if tokens.index is None:
        return tokens.patches.reshape(batch, frames, height, width, dim)
    cells = frames * height * width
    index = tokens.index.flatten(1)
    absent = index < 0 if tokens.valid is None else (index < 0) | ~tokens.valid.flatten(1)
    index = torch.where(absent, cells, index)  # fused tokens and padding go to one extra cell that is cut off again
    flat = tokens.patches.new_zeros(batch, cells + 1, dim)
    flat = flat.scatter(1, index.unsqueeze(-1).expand(-1, -1, dim), tokens.patches.flatten(1, 2))
    return flat[:, :cells].view(batch, frames, height, width, dim)


def window_pool(x: Tensor, logits: Tensor, member: Tensor) -> Tensor:
    """Softmax-weighted mean of the tokens of each window (STViT, intra-window pooling).

    A window that has lost all its tokens is given all those of its group.

    Args:
        x: (B, G, L, C) tokens.
        logits: (B, G, L) gate scores.
        member: (B or 1, G or 1, M, L) bool, which token lies in which window.

    Returns:
        (B, G, M, C) centres.
    """
    member = member | ~member.any(dim=-1, keepdim=True)
    weight = logits.unsqueeze(2).float().masked_fill(~member, -torch.inf).softmax(dim=-1)
    return weight.to(x.dtype) @ x
