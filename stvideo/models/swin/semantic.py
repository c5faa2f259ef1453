"""Semantic tokens on a Swin grid: generation, refinement, semantic layers, recovery.

Chang et al., "Making Vision Transformers Efficient from A Token Sparsification View", CVPR 2023, arXiv 2303.08685,
sections 3.2 to 3.4. Parameter names are those of the released STViT-R-Swin.

Every window of the grid (7 x 7 patches) gives w x w semantic tokens, so these stand on a grid of their own,
(rows of windows * w, columns of windows * w). Windows and centres are adaptive bins of the map, so that any size works
without padding; where the map is a multiple of the window they are the windows of the paper. On video every frame has
its own centres, which read only that frame; the layers after that attend through time.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stvideo.core.layers import CrossAttention, DropPath, Mlp
from stvideo.core.trace import TokenTrace
from stvideo.models.swin.layers import Size3, join_windows, partition, size3
from stvideo.reduction.stgm import GridConv
from stvideo.reduction.windows import adaptive_bins, space_membership, window_pool

KEY_WINDOW = 10
"""Side of the patch window that a window's centres read, for windows of 7 (STViT, appendix)."""


def key_window_starts(length: int, windows: int, side: int) -> list[int]:
    """Place windows of ``side`` cells around the ordinary ones as far as the map allows. Returns their first cells."""
    side = min(side, length)
    centers = [(2 * i + 1) * length / (2 * windows) for i in range(windows)]
    return [min(max(int(center - side / 2), 0), length - side) for center in centers]


def key_window_cells(size: tuple[int, int], windows: tuple[int, int], side: int, device: torch.device) -> Tensor:
    """List the flat positions in the (H, W) map of each enlarged window's cells. Returns (windows, cells) int64."""
    axes = []
    for length, count in zip(size, windows, strict=True):
        starts = torch.tensor(key_window_starts(length, count, side), device=device)
        axes.append(starts.unsqueeze(1) + torch.arange(min(side, length), device=device))
    rows, columns = axes
    cells = rows[:, None, :, None] * size[1] + columns[None, :, None, :]
    return cells.flatten(2).flatten(0, 1)


class Centers(nn.Module):
    """Initial cluster centres of every frame: (B, T, H, W, C) -> (B, T, h, w, C).

    Args:
        dim: channels C.
        pooling: ``gate``, the paper's intra-window pooling by a learned gate plus the inter-window offset; or
            ``max``, the adaptive max pooling of the released code.
    """

    def __init__(self, dim: int, pooling: str) -> None:
        super().__init__()
        self.gate: GridConv | None = None
        self.offset: GridConv | None = None
        if pooling == "gate":
            self.gate = GridConv(dim, 1, over_time=False, bias=False, norm_eps=1e-5)
            self.offset = GridConv(dim, dim, over_time=False, bias=True, norm_eps=1e-5)

    def init_weights(self) -> None:
        """Zero the offset."""
        if self.offset is not None:
            nn.init.zeros_(self.offset.proj.weight)
            nn.init.zeros_(self.offset.proj.bias)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        if self.gate is None or self.offset is None:
            if torch.compiler.is_compiling():
                return max_in_bins(x, grid)
            frames = x.flatten(0, 1).permute(0, 3, 1, 2)
            return F.adaptive_max_pool2d(frames, grid).permute(0, 2, 3, 1).unflatten(0, x.shape[:2])
        member = space_membership((x.shape[2], x.shape[3]), grid, x.device)
        pooled = window_pool(x.flatten(2, 3), self.gate(x).flatten(2), member[None, None])
        centers = pooled.unflatten(2, grid)
        return centers + self.offset(centers)


def max_in_bins(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Pool by adaptive maximum, (B, T, H, W, C) -> (B, T, h, w, C), in operations that every exporter knows."""
    for axis, count in zip((2, 3), grid, strict=True):
        bins = adaptive_bins(x.shape[axis], count)
        x = torch.stack([x.narrow(axis, start, stop - start).amax(axis) for start, stop in bins], axis)
    return x


class SemanticBlock(nn.Module):
    """Pre-norm block that semantic tokens (B, T, h, w, C) take part in, with LayerScale on both branches.

    Args:
        side: semantic tokens along a window's side.
        window: patches along a window's side.
        shortcut: residual on the centres in the first layer of the STGM (the released STViT-R has none).
        over_time: attention among semantic tokens sees all frames of a clip instead of one.
        layer_scale: initial scale of both branches.
        drop_path_rate: stochastic depth, drawn per clip.
        dim, num_heads, mlp_ratio, qkv_bias: as for `SwinTransformer`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        side: int = 3,
        window: int = 7,
        shortcut: bool = True,
        over_time: bool = False,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        layer_scale: float = 1e-5,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.side = side
        self.window = window
        self.shortcut = shortcut
        self.over_time = over_time
        self.norm1 = nn.LayerNorm(dim)
        self.attn = CrossAttention(dim, num_heads, qkv_bias)
        self.layer_scale_1 = nn.Parameter(torch.full((dim,), layer_scale))
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.layer_scale_2 = nn.Parameter(torch.full((dim,), layer_scale))
        self.drop_path = DropPath(drop_path_rate)

    def normed_rows(self, x: Tensor) -> Tensor:
        """Normalise, one sequence per frame. (B, T, h, w, C) -> (B T, h w, C)."""
        return self.norm1(x).flatten(0, 1).flatten(1, 2)

    def finish(self, x: Tensor, out: Tensor, shortcut: bool = True) -> Tensor:
        """Add the residual to the attention output (not without ``shortcut``), and the feed-forward part."""
        out = self.layer_scale_1 * out.view(x.shape)
        x = x + self.drop_path(out) if shortcut else out
        return x + self.drop_path(self.layer_scale_2 * self.mlp(self.norm2(x)))


class GlobalBlock(SemanticBlock):
    """Semantic layer: attention among all tokens (of a frame, or of a clip with ``over_time``)."""

    def attention_window(self, grid: Size3) -> Size3:
        """Return the window of tokens that see each other."""
        return (grid[0] if self.over_time else 1, *grid[1:])

    def forward(self, x: Tensor) -> Tensor:
        grid = size3(x.shape[1:4])
        window = self.attention_window(grid)
        tokens = partition(self.norm1(x), window)
        rows = tokens.flatten(0, 1)
        out = self.attn(self.attn.q(rows), self.attn.kv(rows)).view(tokens.shape)
        return self.finish(x, join_windows(out, window, grid))


class LocalBlock(GlobalBlock):
    """Semantic layer: attention among the tokens of one window (through time with ``over_time``)."""

    def attention_window(self, grid: Size3) -> Size3:
        return (grid[0] if self.over_time else 1, self.side, self.side)


class GenerateBlock(SemanticBlock):
    """First layer of the STGM: each window's centres read themselves and an enlarged patch window around them.

    (B, T, H, W, C) patches -> (B, T, h, w, C) semantic tokens, in every frame.

    Args:
        pooling: see `Centers`.
    """

    def __init__(self, dim: int, num_heads: int, *, pooling: str = "gate", **options: Any) -> None:
        super().__init__(dim, num_heads, **options)
        self.key_window = round(KEY_WINDOW * self.window / 7)
        self.centers = Centers(dim, pooling)

    def forward(self, x: Tensor, trace: TokenTrace | None = None, layer: int = 0) -> Tensor:
        batch, frames, height, width, dim = x.shape
        windows = (-(-height // self.window), -(-width // self.window))
        grid, window = (frames, windows[0] * self.side, windows[1] * self.side), (1, self.side, self.side)
        centers = self.centers(x, grid[1:])
        own = partition(self.norm1(centers), window).flatten(0, 1).unflatten(0, (batch * frames, -1))
        cells = key_window_cells((height, width), windows, self.key_window, x.device)
        # Keys and values of a patch are the same in every window that reads it: project the map, then cut windows.
        kv = self.attn.kv(self.normed_rows(x))
        kv = kv.index_select(1, cells.flatten()).unflatten(1, cells.shape)
        kv = torch.cat((self.attn.kv(own), kv), dim=2).flatten(0, 1)
        q = self.attn.q(own).flatten(0, 1)
        if trace is not None:
            weights = self.attn.weights(q, kv)[..., own.shape[2] :].view(*own.shape[:3], -1)
            on_map = weights.new_zeros(*own.shape[:3], height * width)
            on_map.scatter_(-1, cells[:, None].expand(weights.shape), weights)
            record_strongest(
                trace, layer, join_windows(on_map, window, (1, *grid[1:])).view(batch, frames, -1, height * width)
            )
        out = self.attn(q, kv).view(batch, -1, self.side * self.side, dim)
        return self.finish(centers, join_windows(out, window, grid), self.shortcut)


class RefineBlock(SemanticBlock):
    """Second layer of the STGM: the semantic tokens of a frame read themselves and all its patches."""

    def forward(self, s: Tensor, x: Tensor, trace: TokenTrace | None = None, layer: int = 0) -> Tensor:
        """Semantic tokens (B, T, h, w, C), patches (B, T, H, W, C) -> (B, T, h, w, C)."""
        own = self.normed_rows(s)
        q, kv = self.attn.q(own), self.attn.kv(torch.cat((own, self.normed_rows(x)), dim=1))
        if trace is not None:
            weights = self.attn.weights(q, kv)[..., own.shape[1] :].unflatten(0, s.shape[:2])
            record_strongest(trace, layer, weights)
        return self.finish(s, self.attn(q, kv))


class RecoverBlock(SemanticBlock):
    """Recovery (STViT-R): patches that waited unchanged read the semantic tokens of their frame."""

    def forward(self, x: Tensor, s: Tensor) -> Tensor:
        """Patches (B, T, H, W, C), semantic tokens (B, T, h, w, C) -> (B, T, H, W, C)."""
        return self.finish(x, self.attn(self.attn.q(self.normed_rows(x)), self.attn.kv(self.normed_rows(s))))


def record_strongest(trace: TokenTrace, layer: int, weights: Tensor) -> None:
    """Write, for every patch, which semantic token of its frame attends to it most. weights (B, T, h w, H W)."""
    frames, count = weights.shape[1:3]
    first = torch.arange(frames, device=weights.device).view(1, frames, 1) * count
    trace.record(layer, "stgm", (weights.argmax(dim=2) + first).flatten(1), kind="semantic")
