"""Parts of Swin-like networks: windows, window attention, blocks, patch merging, stems.

Liu et al., "Swin Transformer", arXiv 2103.14030; "Video Swin Transformer", arXiv 2106.13230. Parameter names are the
official ones. Everything works on token grids (B, T, H, W, C); an image is a grid of one frame whose windows are one
frame long, so images and clips share every line of code.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from stvideo.core.layers import DropPath, Mlp
from stvideo.models.embedding import PatchEmbed, per_frame

Size3 = tuple[int, int, int]
"""(frames, rows, columns)."""

MASKED = -100.0  # what upstream adds to logits between tokens that a shift made neighbours


def size3(values: Iterable[int]) -> Size3:
    """Unpack (frames, rows, columns)."""
    frames, rows, columns = values
    return frames, rows, columns


def fit_window(grid: Size3, window: Size3, shift: Size3) -> tuple[Size3, Size3]:
    """Fit window and shift to a ``grid``: along an axis that one window covers, it shrinks and does not shift."""
    shift = size3(0 if length <= side else step for length, side, step in zip(grid, window, shift, strict=True))
    return size3(map(min, grid, window)), shift


def pad_to_multiple(x: Tensor, window: Size3) -> Tensor:
    """Pad with zeros after the last frame, row and column to whole windows. (B, T, H, W, C) -> (B, T', H', W', C)."""
    extra = [-length % side for length, side in zip(x.shape[1:4], window, strict=True)]
    return F.pad(x, (0, 0, 0, extra[2], 0, extra[1], 0, extra[0])) if any(extra) else x


def partition(x: Tensor, window: Size3) -> Tensor:
    """Cut a grid into windows. (B, T, H, W, C), whole windows -> (B, windows, tokens in a window, C)."""
    t, h, w = window
    return rearrange(x, "b (f t) (r h) (c w) d -> b (f r c) (t h w) d", t=t, h=h, w=w)


def join_windows(x: Tensor, window: Size3, grid: Size3) -> Tensor:
    """Invert `partition`. (B, windows, tokens in a window, C) -> (B, T, H, W, C)."""
    (t, h, w), (frames, rows, _) = window, grid
    pattern = "b (f r c) (t h w) d -> b (f t) (r h) (c w) d"
    return rearrange(x, pattern, f=frames // t, r=rows // h, t=t, h=h, w=w)


def shift_mask(grid: Size3, window: Size3, shift: Size3, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Keep apart, within a window of the rolled grid, tokens that are not neighbours in the picture.

    Args:
        grid: whole windows.
        window: its size.
        shift: by how much the grid was rolled towards the origin; 0 along an axis that was not.

    Returns:
        (windows, tokens, tokens), 0 or `MASKED`.
    """
    region = torch.zeros(1, *grid, 1, dtype=torch.long, device=device)
    for axis, (length, side, step) in enumerate(zip(grid, window, shift, strict=True), 1):
        if step:
            position = torch.arange(length, device=device)
            part = (position >= length - side).long() + (position >= length - step).long()
            region = region * 3 + part.view([-1 if i == axis else 1 for i in range(5)])
    region = partition(region, window)[0, :, :, 0]
    apart = region.unsqueeze(1) != region.unsqueeze(2)
    return torch.zeros(apart.shape, device=device, dtype=dtype).masked_fill_(apart, MASKED)


def relative_positions(window: Size3) -> Tensor:
    """Number the row of the bias table of each pair of tokens of a full window. Returns (tokens, tokens) int64."""
    _, h, w = window
    place = torch.cartesian_prod(*map(torch.arange, window))
    offset = place.unsqueeze(1) - place.unsqueeze(0) + torch.tensor(window) - 1
    return (offset * torch.tensor([(2 * h - 1) * (2 * w - 1), 2 * w - 1, 1])).sum(-1)


class WindowAttention(nn.Module):
    """Multi-head self-attention inside windows with a learned bias per relative position.

    Args:
        dim: channels C.
        num_heads: attention heads.
        window: full window size.
        qkv_bias: bias in the query, key and value projection.
        flat_bias: how the bias of a window that is cut to a small grid is read. False: by the tokens' true relative
            positions. True: the first rows and columns of the full window's table, whatever their positions, as the
            published Video Swin models do (the same thing where only time is cut).
    """

    relative_position_index: Tensor

    def __init__(self, dim: int, num_heads: int, window: Size3, qkv_bias: bool = True, flat_bias: bool = False) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window = window
        self.flat_bias = flat_bias
        positions = (2 * window[0] - 1) * (2 * window[1] - 1) * (2 * window[2] - 1)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(positions, num_heads))
        self.register_buffer("relative_position_index", relative_positions(window), persistent=False)
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def position_bias(self, window: Size3) -> Tensor:
        """Look up the biases (h, tokens, tokens) of a ``window`` no larger than the full one."""
        t, h, w = window
        tokens, index = t * h * w, self.relative_position_index
        if self.flat_bias:
            index = index[:tokens, :tokens]
        elif window != self.window:
            index = index.view(*self.window, *self.window)[:t, :h, :w, :t, :h, :w]
        return self.relative_position_bias_table[index.flatten()].view(tokens, tokens, -1).permute(2, 0, 1)

    def forward(self, x: Tensor, window: Size3, mask: Tensor | None = None) -> Tensor:
        """Attend in every window.

        Args:
            x: (B, windows, tokens, C).
            window: their size, tokens = t * h * w.
            mask: (windows, tokens, tokens) added to the logits.

        Returns:
            (B, windows, tokens, C).
        """
        batch, windows, tokens, dim = x.shape
        qkv = self.qkv(x).view(batch, windows, tokens, 3, self.num_heads, dim // self.num_heads)
        bias = self.position_bias(window)
        if mask is None:
            q, k, v = qkv.flatten(0, 1).permute(2, 0, 3, 1, 4).unbind(0)  # (B windows, h, tokens, d)
            bias = bias.unsqueeze(0)
        else:  # windows beside the heads, so that the mask is not repeated for every clip
            q, k, v = qkv.permute(3, 0, 1, 4, 2, 5).flatten(2, 3).unbind(0)  # (B, windows h, tokens, d)
            bias = (bias.unsqueeze(0) + mask.unsqueeze(1)).flatten(0, 1).unsqueeze(0)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        out = out.reshape(batch, windows, self.num_heads, tokens, -1).transpose(2, 3)
        return self.proj(out.flatten(3))


class SwinBlock(nn.Module):
    """Pre-norm block with attention inside (shifted) windows. (B, T, H, W, C) -> (B, T, H, W, C).

    Args:
        window: window size; cut to the grid where that is smaller.
        shifted: whether the windows are moved by half their size.
        drop_path_rate: stochastic depth, drawn per clip.
        dim, num_heads, mlp_ratio, qkv_bias, flat_bias: as for `SwinTransformer`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        window: Size3,
        shifted: bool = False,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        flat_bias: bool = False,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.window = window
        self.shift: Size3 = size3(side // 2 for side in window) if shifted else (0, 0, 0)
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, num_heads, window, qkv_bias, flat_bias)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path_rate)

    def attend(self, x: Tensor) -> Tensor:
        """Compute the attention branch, padding to whole windows and cutting off again."""
        frames, rows, columns = x.shape[1:4]
        window, shift = fit_window((frames, rows, columns), self.window, self.shift)
        x = pad_to_multiple(x, window)
        grid, mask = size3(x.shape[1:4]), None
        if any(shift):
            x = x.roll([-step for step in shift], dims=(1, 2, 3))
            mask = shift_mask(grid, window, shift, x.device, x.dtype)
        x = join_windows(self.attn(partition(x, window), window, mask), window, grid)
        if any(shift):
            x = x.roll(shift, dims=(1, 2, 3))
        return x[:, :frames, :rows, :columns]

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attend(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class PatchMerging(nn.Module):
    """Join side x side neighbours of each frame into one token of twice the channels.

    (B, T, H, W, C) -> (B, T, H/side, W/side, 2C). Side 1, for semantic tokens (STViT), only widens them.
    """

    def __init__(self, dim: int, side: int = 2) -> None:
        super().__init__()
        self.side = side
        self.reduction = nn.Linear(side * side * dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(side * side * dim)

    def forward(self, x: Tensor) -> Tensor:
        x = pad_to_multiple(x, (1, self.side, self.side))
        x = rearrange(x, "b t (h y) (w x) c -> b t h w (x y c)", y=self.side, x=self.side)  # the official order
        return self.reduction(self.norm(x))


class PatchStem(PatchEmbed):
    """Patches of p x p pixels (of t frames), projected linearly and normalised. (B, 3, T, H, W) -> (B, T', H', W', C).

    Sizes that are no multiple of the patch are padded with zeros.
    """

    def __init__(self, patch_size: int, tubelet_size: int, dim: int) -> None:
        super().__init__(patch_size, tubelet_size, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, clip: Tensor) -> Tensor:
        extra = [-length % side for length, side in zip(clip.shape[2:], self.size, strict=True)]
        if any(extra):
            clip = F.pad(clip, (0, extra[2], 0, extra[1], 0, extra[0]))
        return self.norm(self.project(clip))


def conv_norm(in_dim: int, dim: int) -> nn.Sequential:
    """Create a 3x3 convolution of stride 2 and batch norm, in the released STViT-R's parameter names."""
    norm = nn.BatchNorm2d(dim)
    # Momentum is a constant, so that the number of batches is of no use; files without it load completely.
    norm.num_batches_tracked = None
    return nn.Sequential(OrderedDict(c=nn.Conv2d(in_dim, dim, 3, 2, 1, bias=False), bn=norm))


class ConvStem(nn.Module):
    """Two 3x3 convolutions of stride 2, each with batch norm and Hardswish (STViT-Swin).

    (B, 3, T, H, W) -> (B, T, ceil(H/4), ceil(W/4), C), frame by frame.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(conv_norm(3, dim // 2), nn.Hardswish(), conv_norm(dim // 2, dim), nn.Hardswish())

    def forward(self, clip: Tensor) -> Tensor:
        # Channels last halves the stem's time, and the tokens need no copy after it.
        return per_frame(lambda frames: self.proj(frames.contiguous(memory_format=torch.channels_last)), clip)
