"""Semantic tokens on a Swin grid: generation, refinement, semantic layers, recovery.

Chang et al., "Making Vision Transformers Efficient from A Token Sparsification View", CVPR 2023, arXiv 2303.08685,
sections 3.2 to 3.4. Parameter names are those of the released STViT-R-Swin.

Every window of the grid (7 x 7 patches) gives w x w semantic tokens, so these stand on a grid of their own,
(rows of windows * w, columns of windows * w). Windows and centres are adaptive bins of the map, so that any size works
without padding; where the map is a multiple of the window they are the windows of the paper. On video every frame has
its own centres, which read only that frame; the layers after that attend through time.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stvideo.core.layers import DropPath, Mlp, attention_weights
from stvideo.core.parts import part
from stvideo.core.trace import TokenTrace
from stvideo.models.swin.layers import join_windows, partition
from stvideo.reduction.stgm import GridConv
from stvideo.reduction.windows import adaptive_bins, space_membership, window_pool

KEY_WINDOW = 10
"""Side of the patch window that a window's centres read, for windows of 7 (STViT, appendix)."""


def key_window_starts(length: int, windows: int, side: int) -> list[int]:
    """First cell of each enlarged window: as wide as ``side``, around its window as far as the map allows."""
    side = min(side, length)
    centers = [(2 * i + 1) * length / (2 * windows) for i in range(windows)]
    return [min(max(int(center - side / 2), 0), length - side) for center in centers]


def key_window_cells(size: tuple[int, int], windows: tuple[int, int], side: int, device: torch.device) -> Tensor:
    """(windows, cells) int64: flat position in the (H, W) map of every cell of each enlarged window."""
    axes = []
    for length, count in zip(size, windows, strict=True):
        starts = torch.tensor(key_window_starts(length, count, side), device=device)
        axes.append(starts.unsqueeze(1) + torch.arange(min(side, length), device=device))
    rows, columns = axes
    cells = rows[:, None, :, None] * size[1] + columns[None, :, None, :]
    return cells.flatten(2).flatten(0, 1)


class CrossAttention(nn.Module):
    """Multi-head attention with separate query and key-value projections."""

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool = True) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim, bias=qkv_bias)
        self.kv = nn.Linear(dim, 2 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def heads(self, x: Tensor) -> Tensor:
        """(R, L, C) -> (R, h, L, d)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def attend(self, q: Tensor, kv: Tensor) -> Tensor:
        """Projected queries (R, Lq, C), projected keys and values (R, Lk, 2C) -> (R, Lq, C)."""
        k, v = kv.chunk(2, dim=-1)
        out = F.scaled_dot_product_attention(self.heads(q), self.heads(k), self.heads(v))
        return self.proj(out.transpose(1, 2).flatten(2))

    def weights(self, q: Tensor, kv: Tensor) -> Tensor:
        """The attention map averaged over heads, for looking at. (R, Lq, C), (R, Lk, 2C) -> (R, Lq, Lk)."""
        return attention_weights(self.heads(q), self.heads(kv.chunk(2, dim=-1)[0]))


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
        """Start without an offset."""
        if self.offset is not None:
            nn.init.zeros_(self.offset.proj.weight)
            nn.init.zeros_(self.offset.proj.bias)

    @part("pooling", reduction=True)
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
    """Adaptive max pooling (B, T, H, W, C) -> (B, T, h, w, C) in operations that every exporter knows."""
    for axis, count in zip((2, 3), grid, strict=True):
        bins = adaptive_bins(x.shape[axis], count)
        x = torch.stack([x.narrow(axis, start, stop - start).amax(axis) for start, stop in bins], axis)
    return x


class SemanticBlock(nn.Module):
    """Pre-norm block on semantic tokens (B, T, h, w, C) with LayerScale on both branches.

    Args:
        dim: channels C.
        num_heads: attention heads.
        mlp_ratio: hidden width of the feed-forward part over C.
        qkv_bias: bias of the query and key-value projections.
        layer_scale: initial scale of both branches.
        drop_path_rate: stochastic depth, drawn per clip.
        over_time: one attention over all frames of a clip instead of one per frame.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        layer_scale: float = 1e-5,
        drop_path_rate: float = 0.0,
        over_time: bool = False,
    ) -> None:
        super().__init__()
        self.over_time = over_time
        self.norm1 = nn.LayerNorm(dim)
        self.attn = CrossAttention(dim, num_heads, qkv_bias)
        self.layer_scale_1 = nn.Parameter(torch.full((dim,), layer_scale))
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.layer_scale_2 = nn.Parameter(torch.full((dim,), layer_scale))
        self.drop_path = DropPath(drop_path_rate)

    def rows(self, x: Tensor, over_time: bool | None = None) -> Tensor:
        """(B, T, h, w, C) as sequences: (B, T h w, C) over time, else (B T, h w, C)."""
        over_time = self.over_time if over_time is None else over_time
        return x.flatten(1, 3) if over_time else x.flatten(0, 1).flatten(1, 2)

    def finish(self, x: Tensor, out: Tensor, shortcut: bool = True) -> Tensor:
        """Residual of the attention output (dropped without ``shortcut``) and the feed-forward part."""
        out = self.layer_scale_1 * out.view(x.shape)
        x = x + self.drop_path(out) if shortcut else out
        return x + self.drop_path(self.layer_scale_2 * self.mlp(self.norm2(x)))

    def attend_self(self, x: Tensor) -> Tensor:
        """(R, L, C) normalised tokens -> (R, L, C)."""
        return self.attn.attend(self.attn.q(x), self.attn.kv(x))


class GlobalBlock(SemanticBlock):
    """Semantic layer: attention among all tokens (of a frame, or of a clip with ``over_time``)."""

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(x, self.attend_self(self.rows(self.norm1(x))))


class LocalBlock(SemanticBlock):
    """Semantic layer: attention among the tokens of one window (through time with ``over_time``).

    Args:
        side: semantic tokens along a window's side.
    """

    def __init__(self, dim: int, num_heads: int, *, side: int, **options: object) -> None:
        super().__init__(dim, num_heads, **options)  # type: ignore[arg-type]
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        window = (x.shape[1] if self.over_time else 1, self.side, self.side)
        tokens = partition(self.norm1(x), window)
        out = self.attend_self(tokens.flatten(0, 1)).view(tokens.shape)
        return self.finish(x, join_windows(out, window, tuple(x.shape[1:4])))  # type: ignore[arg-type]


class GenerateBlock(SemanticBlock):
    """First layer of the STGM: each window's centres read themselves and an enlarged patch window around them.

    (B, T, H, W, C) patches -> (B, T, h, w, C) semantic tokens, in every frame.

    Args:
        side: semantic tokens along a window's side.
        window: patches along a window's side.
        pooling: see `Centers`.
        shortcut: residual on the centres (the released STViT-R has none).
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        side: int,
        window: int,
        pooling: str,
        shortcut: bool,
        **options: object,
    ) -> None:
        super().__init__(dim, num_heads, **options)  # type: ignore[arg-type]
        self.side = side
        self.window = window
        self.key_window = round(KEY_WINDOW * window / 7)
        self.shortcut = shortcut
        self.centers = Centers(dim, pooling)

    @part("first layer", reduction=True)
    def forward(self, x: Tensor, trace: TokenTrace | None = None, layer: int = 0) -> Tensor:
        batch, frames, height, width, dim = x.shape
        windows = (-(-height // self.window), -(-width // self.window))
        grid = (frames, windows[0] * self.side, windows[1] * self.side)
        centers = self.centers(x, grid[1:])
        own = partition(self.norm1(centers), (1, self.side, self.side)).flatten(0, 1).unflatten(0, (batch * frames, -1))
        cells = key_window_cells((height, width), windows, self.key_window, x.device)
        # Keys and values of a patch are the same in every window that reads it: project the map, then cut windows.
        kv = self.attn.kv(self.rows(self.norm1(x), over_time=False))
        kv = kv.index_select(1, cells.flatten()).unflatten(1, cells.shape)
        kv = torch.cat((self.attn.kv(own), kv), dim=2).flatten(0, 1)
        q = self.attn.q(own).flatten(0, 1)
        if trace is not None:
            weights = self.attn.weights(q, kv)[..., own.shape[2] :]
            _record_windows(trace, layer, weights.view(batch, frames, *own.shape[1:3], -1), cells, self.side, windows)
        out = self.attn.attend(q, kv).view(batch, -1, self.side * self.side, dim)
        return self.finish(centers, join_windows(out, (1, self.side, self.side), grid), self.shortcut)


class RefineBlock(SemanticBlock):
    """Second layer of the STGM: the semantic tokens of a frame read themselves and all its patches."""

    @part("second layer", reduction=True)
    def forward(self, s: Tensor, x: Tensor, trace: TokenTrace | None = None, layer: int = 0) -> Tensor:
        """Semantic tokens (B, T, h, w, C), patches (B, T, H, W, C) -> (B, T, h, w, C)."""
        own = self.rows(self.norm1(s), over_time=False)
        memory = torch.cat((own, self.rows(self.norm1(x), over_time=False)), dim=1)
        q, kv = self.attn.q(own), self.attn.kv(memory)
        if trace is not None:
            weights = self.attn.weights(q, kv)[..., own.shape[1] :].unflatten(0, s.shape[:2])
            record_strongest(trace, layer, weights)
        return self.finish(s, self.attn.attend(q, kv))


class RecoverBlock(SemanticBlock):
    """Recovery (STViT-R): patches that waited unchanged read the semantic tokens of their frame."""

    @part("recovery", reduction=True)
    def forward(self, x: Tensor, s: Tensor) -> Tensor:
        """Patches (B, T, H, W, C), semantic tokens (B, T, h, w, C) -> (B, T, H, W, C)."""
        q = self.attn.q(self.rows(self.norm1(x), over_time=False))
        kv = self.attn.kv(self.rows(self.norm1(s), over_time=False))
        return self.finish(x, self.attn.attend(q, kv))


def record_strongest(trace: TokenTrace, layer: int, weights: Tensor) -> None:
    """Write, for every patch, which semantic token of its frame attends to it most. weights (B, T, h w, H W)."""
    frames, count = weights.shape[1:3]
    first = torch.arange(frames, device=weights.device).view(1, frames, 1) * count
    trace.record(layer, "stgm", (weights.argmax(dim=2) + first).flatten(1), kind="semantic")


def _record_windows(
    trace: TokenTrace, layer: int, weights: Tensor, cells: Tensor, side: int, windows: tuple[int, int]
) -> None:
    """`record_strongest` for attention inside enlarged windows. weights (B, T, windows, tokens, cells of a window)."""
    rows, columns = trace.current.shape[-2:]  # type: ignore[union-attr]
    on_map = weights.new_zeros(*weights.shape[:4], rows * columns)
    on_map.scatter_(-1, cells[:, None].expand(weights.shape), weights)
    on_grid = join_windows(on_map.flatten(0, 1), (1, side, side), (1, windows[0] * side, windows[1] * side))
    record_strongest(trace, layer, on_grid.flatten(1, 3).unflatten(0, weights.shape[:2]))
