"""STViT on video: the semantic token generation module (STGM).

Chang et al., "Making Vision Transformers Efficient from A Token Sparsification View", CVPR 2023, arXiv 2303.08685.

A few cluster centres on a semantic grid (t, h, w) replace all patch tokens for the rest of the network. Every block
that the module takes the place of lends it its weights (norms, attention, feed-forward part, temporal attention), so
a dense checkpoint loads as it is; only the gate, the offset, the global centres and the scales are new.

What we chose where the paper leaves video open, or differ from it:
    - Windows are adaptive bins (`adaptive_bins`) for every size; the paper's code pads to a multiple.
    - Centres of time slot k read the patches of that slot's frames; under joint attention all of the clip's.
    - A class token, where the model has one, stays: it is one more query of every slot, stands among the keys as in
      an ordinary block, and its outputs are averaged over the slots.
    - Temporal attention of a divided block runs on the semantic tokens.
    - Gate and offset convolve over time too (3x3x3) where the semantic grid pools over time, else per frame (3x3).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stvideo.core.errors import StvideoError
from stvideo.core.layers import LayerScale, attention_weights, resize_grid_embedding, resize_time_embedding
from stvideo.core.tokens import Tokens
from stvideo.reduction.base import Reduction, register_reduction
from stvideo.reduction.checks import semantic_layers
from stvideo.reduction.hooks import Budget, Host
from stvideo.reduction.windows import bin_membership, scatter_to_grid, slot_frames, space_membership, window_pool


class GridConv(nn.Module):
    """Depth-wise convolution over a token grid, LayerNorm, GELU, linear. (B, T, H, W, C) -> (B, T, H, W, out).

    Args:
        dim: channels C.
        out: output channels.
        over_time: convolve 3x3x3 instead of 3x3 per frame.
        bias: bias of the last layer.
        norm_eps: epsilon of the LayerNorm.
    """

    def __init__(self, dim: int, out: int, over_time: bool, bias: bool, norm_eps: float) -> None:
        super().__init__()
        conv = nn.Conv3d if over_time else nn.Conv2d
        self.conv = conv(dim, dim, 3, padding=1, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=norm_eps)
        self.proj = nn.Linear(dim, out, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        # Permuted, the tokens are maps in channels-last layout, where depth-wise convolutions take half the time.
        if isinstance(self.conv, nn.Conv2d):
            maps = self.conv(x.flatten(0, 1).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).reshape(x.shape)
        else:
            maps = self.conv(x.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1)
        return self.proj(F.gelu(self.norm(maps)))


class Memory(NamedTuple):
    """The patch tokens that each of G groups of centres reads.

    Attributes:
        patches: (B, G, L, C).
        place: (B, G, L) int64, flat position of each in the grid.
        bias: (B or 1, G, L) float32 added to the attention logits, -inf on padding; None for none.
    """

    patches: Tensor
    place: Tensor
    bias: Tensor | None


@register_reduction("stgm")
class SemanticTokens(Reduction):
    """Semantic token generation in place of consecutive blocks (STViT, section 3.2).

    Args:
        host: the model.
        layers: the consecutive blocks it takes the place of; the paper's best depth is two, at 4 and 5 of 12 (default).
        grid: semantic tokens (t, h, w). ``None`` for t is one slot per frame, whatever the clip's length.
        num_semantic_tokens: instead of ``grid``, how many per frame; a square number such as 16.
        layer_scale: initial scale of both branches in each of its layers. 1 suits weights that come from a dense
            checkpoint; the authors train from scratch with 1e-5.
        global_centers: add learned centres G from the second layer on; on video a part per position plus a part per
            time slot. They need at least two layers.
        grids: any-budget training: the grids that the same weights serve. Every training step draws one of them, the
            weights are laid out for the largest, and the global centres are resized to the others like a positional
            embedding (ours; the paper trains one grid). Evaluation uses ``grid``, by default the largest.

    Raises:
        StvideoError: layers that are not consecutive, or a semantic grid larger than the patch grid.
    """

    budgets = {  # noqa: RUF012
        "grid": Budget("grid", is_default=True),
        "num_semantic_tokens": Budget("count", is_default=True),
    }

    def __init__(
        self,
        host: Host,
        *,
        layers: Sequence[int] | int | None = None,
        grid: Sequence[int | None] | None = None,
        num_semantic_tokens: int | None = None,
        layer_scale: float = 1.0,
        global_centers: bool = True,
        grids: Sequence[Sequence[int | None]] | None = None,
    ) -> None:
        super().__init__(host, layers=semantic_layers(host.depth) if layers is None else layers)
        if self.span_from(self.layers[0]) != len(self.layers):
            raise StvideoError(f"{self.name}: layers {list(self.layers)} are not consecutive blocks")
        if num_semantic_tokens is not None:
            if grid is not None:
                raise StvideoError(f"{self.name}: give grid or num_semantic_tokens, not both")
            grid = square_grid(self.name, num_semantic_tokens)
        self.grids = check_grids(self.name, grids, host)
        if grid is None:
            grid = self.grids[-1] if self.grids else (None, 4, 4)
        self.grid = check_grid(self.name, grid, host)
        self.attention = host.attention
        served = self.grids or [self.grid]
        slots = max(t or host.num_frames for t, _, _ in served)
        rows, columns = self.layout = max(h for _, h, _ in served), max(w for _, _, w in served)
        over_time = any(t is not None and t < host.num_frames for t, _, _ in served)
        dim = host.embed_dim
        self.gate = GridConv(dim, 1, over_time, bias=False, norm_eps=host.norm_eps)
        self.offset = GridConv(dim, dim, over_time, bias=True, norm_eps=host.norm_eps)
        nn.init.zeros_(self.offset.proj.weight)
        nn.init.zeros_(self.offset.proj.bias)
        self.attn_scale = nn.ModuleList(LayerScale(dim, layer_scale) for _ in self.layers)
        self.mlp_scale = nn.ModuleList(LayerScale(dim, layer_scale) for _ in self.layers)
        self.center_space: nn.Parameter | None = None
        self.center_time: nn.Parameter | None = None
        if global_centers and len(self.layers) > 1:
            self.center_space = nn.Parameter(torch.empty(1, rows * columns, dim).normal_(std=0.02))
            if slots > 1:
                self.center_time = nn.Parameter(torch.empty(1, slots, dim).normal_(std=0.02))

    @property
    def served_grids(self) -> list[list[int | None]]:
        """The grids that the weights are laid out for, as the option ``grids`` takes them."""
        return [list(grid) for grid in self.grids or [self.grid]]

    @classmethod
    def example(cls, host: Host) -> dict[str, Any]:
        depth = min(host.depth, 3)
        return {"layers": tuple(range(1, depth)), "grid": (None, 2, 2)}

    def draw_budget(self, generator: torch.Generator) -> None:
        if self.grids:
            self.train_with({"grid": self.grids[int(torch.randint(len(self.grids), (), generator=generator))]})

    def training_budgets(self, count: int) -> list[dict[str, Any]]:
        return [{"grid": list(grid)} for grid in self.grids]

    def with_budget(self, budget: Mapping[str, Any]) -> dict[str, Any]:
        return super().with_budget(budget) | {"grids": self.served_grids}

    def state_summary(self) -> dict[str, float]:
        return {"tokens_per_slot": float(math.prod(self.grid[1:]))} if len(self.grids) > 1 else {}

    def semantic_grid(self, frames: int) -> tuple[int, int, int]:
        """Return (t, h, w) for a clip of ``frames`` frames; raises `StvideoError` if it has fewer than t."""
        slots, rows, columns = self.grid
        if slots is not None and slots > frames:
            raise StvideoError(f"{self.name}: {slots} time slots for a clip of {frames} frames")
        return slots or frames, rows, columns

    def global_centers(self, grid: tuple[int, int, int]) -> Tensor | None:
        """G for the semantic ``grid``, (1, t, h*w, C): the part per position plus the part per slot."""
        if self.center_space is None:
            return None
        centers = resize_grid_embedding(self.center_space, self.layout, grid[1:]).unsqueeze(1)
        if self.center_time is not None:
            centers = centers + resize_time_embedding(self.center_time, grid[0]).unsqueeze(2)
        return centers.expand(-1, grid[0], -1, -1)

    def replace(self, layer: int, tokens: Tokens, blocks: Sequence[Any]) -> Tokens:
        """Read the patch tokens, return only the semantic tokens.

        Args:
            layer: number of the first block.
            tokens: patches (B, F, N, C) on the grid (T, H, W).
            blocks: the blocks whose weights it uses.

        Returns:
            Tokens on the grid (t, h, w): patches (B, t, h*w, C), or (B, 1, t*h*w, C) under joint attention.
        """
        frames, height, width = tokens.grid
        grid = self.semantic_grid(frames)
        if grid[1] > height or grid[2] > width:
            raise StvideoError(f"{self.name}: a semantic grid of {grid[1]}x{grid[2]} for {height}x{width} patches")
        memory = self._memory(tokens, grid[0])
        state = tokens.replace(
            patches=self._initial_centers(tokens, grid, memory),
            prefix=self._prefix_per_slot(tokens, grid[0]),
            grid=grid,
            index=None,
            size=None,
            valid=None,
            policy=None,
            per_token={},
            fusions=0,
            aligned=True,
            trace=None,
        )
        extra = self.global_centers(grid)
        entered = None if tokens.trace is None else tokens.trace.snapshot()
        for i, block in enumerate(blocks):
            if i == 1 and extra is not None:
                state = state.replace(patches=state.patches + extra.reshape(1, *state.patches.shape[1:]))
            state = block.mix_time(state)
            if tokens.trace is not None and entered is not None:
                tokens.trace.restore(entered)  # both layers' assignments start from the tokens that entered the module
            state = self._read(i, block, state, memory, tokens, layer + i)
            state = block.feed_forward(state, self.mlp_scale[i])
        return state.replace(trace=tokens.trace)

    def _prefix_per_slot(self, tokens: Tokens, slots: int) -> Tensor:
        """Average the class tokens of per-frame groups over each slot's frames; shared ones stay as they are."""
        prefix = tokens.prefix
        if prefix.shape[1] in (1, slots):
            return prefix
        member = bin_membership(prefix.shape[1], slots, prefix.device).to(prefix.dtype)
        weight = member / member.sum(dim=1, keepdim=True)
        return torch.einsum("st,btpc->bspc", weight, prefix)

    def _memory(self, tokens: Tokens, slots: int) -> Memory:
        """Collect the patch tokens that each group of centres reads: those of its slot's frames."""
        patches, index = tokens.patches, tokens.indices()
        frames = patches.shape[1]
        bias = tokens.attention_bias()
        bias = None if bias is None else bias[:, :, tokens.num_prefix :]
        if self.attention == "joint" or slots == frames:
            return Memory(patches, index, bias)
        table, valid = slot_frames(frames, slots, patches.device)

        def per_slot(x: Tensor) -> Tensor:
            return x.index_select(1, table.flatten()).reshape(x.shape[0], slots, -1, *x.shape[3:])

        if valid is not None:
            bias = patches.new_zeros(1, *patches.shape[1:3], dtype=torch.float32) if bias is None else bias
            absent = ~valid.unsqueeze(-1).expand(-1, -1, patches.shape[2]).reshape(1, slots, -1)
            return Memory(per_slot(patches), per_slot(index), per_slot(bias).masked_fill(absent, -torch.inf))
        return Memory(per_slot(patches), per_slot(index), None if bias is None else per_slot(bias))

    def _initial_centers(self, tokens: Tokens, grid: tuple[int, int, int], memory: Memory) -> Tensor:
        """Pool P: gated pooling inside each window, plus the offset between windows. Returns (B, G, M, C)."""
        batch, index = memory.patches.shape[0], memory.place
        frames, height, width = tokens.grid
        gate = self.gate(scatter_to_grid(tokens)).flatten(1)  # (B, T*H*W)
        cell = index.clamp(min=0).expand(batch, -1, -1)
        logits = gate.gather(1, cell.flatten(1)).view(cell.shape)

        member = space_membership((height, width), grid[1:], index.device)[:, index % (height * width)]
        member = member.movedim(0, 2) & (index >= 0).unsqueeze(2)  # (B or 1, G, h*w, L)
        if self.attention == "joint":
            in_time = bin_membership(frames, grid[0], index.device)[:, index.clamp(min=0) // (height * width)]
            member = (in_time.movedim(0, 2).unsqueeze(3) & member.unsqueeze(2)).flatten(2, 3)
        if memory.bias is not None:
            member = member & memory.bias.isfinite().unsqueeze(2)
            logits = logits + memory.bias.nan_to_num(neginf=0.0)
        centers = window_pool(memory.patches, logits, member)
        on_grid = centers.reshape(batch, *grid, -1)
        return (on_grid + self.offset(on_grid)).reshape(centers.shape)

    def _read(self, i: int, block: Any, state: Tokens, memory: Memory, source: Tokens, layer: int) -> Tokens:
        """Attend from semantic and class tokens to the patches in one STGM layer.

        The first layer's keys are the class token and the patches, later ones' the semantic tokens too
        (STViT, equations 3 and 5).
        """
        batch, groups, count, dim = state.patches.shape
        num_prefix = state.num_prefix
        x = torch.cat((state.prefix.expand(batch, groups, num_prefix, dim), state.patches), dim=2).flatten(0, 1)
        own = num_prefix if i == 0 else num_prefix + count
        q = block.rotate(block.attn.project_q(block.norm1(x)), state)
        k, v = block.attn.project_kv(block.norm1(torch.cat((x[:, :own], memory.patches.flatten(0, 1)), dim=1)))
        if block.rope is not None:
            place = F.pad(state.indices()[:1], (num_prefix, 0), value=-1)[:, :, :own]
            k_own = block.rotate(k[:, :, :own], state, place)
            k = torch.cat((k_own, block.rotate(k[:, :, own:], source, memory.place)), dim=2)
        bias = None
        if memory.bias is not None:
            bias = F.pad(memory.bias.expand(batch, -1, -1).flatten(0, 1), (own, 0))
        mask = None if bias is None else bias.to(q.dtype)[:, None, None]
        out = block.ls1(block.attn.attend(q, k, v, mask))
        out = block.drop_path(self.attn_scale[i](out).view(batch, groups, -1, dim))
        if source.trace is not None:
            weights = attention_weights(q[:, :, num_prefix:], k, bias)[..., own:]
            self._trace(weights.view(batch, groups, count, -1), source, layer)
        return block.add_residual(state, out)

    def _trace(self, weights: Tensor, source: Tokens, layer: int) -> None:
        """Record, for every patch token, the semantic token that attends to it most. weights (B, G, M, L)."""
        assert source.trace is not None
        batch, groups, count, _ = weights.shape
        before_groups, before_count = source.patches.shape[1:3]
        if groups == before_groups:
            table = torch.arange(groups, device=weights.device).unsqueeze(1)
        else:
            table, _ = slot_frames(before_groups, groups, weights.device)
        position = table.unsqueeze(-1) * before_count + torch.arange(before_count, device=weights.device)
        position = position.reshape(1, groups, 1, -1).expand_as(weights)
        per_token = weights.new_zeros(batch, groups, count, before_groups * before_count)
        per_token.scatter_reduce_(3, position, weights, "amax")  # repeated frames of a padded slot count once
        moved_to = per_token.flatten(1, 2).argmax(dim=1)
        source.trace.record(layer, self.name, moved_to, kind="semantic")


def square_grid(name: str, count: int) -> tuple[None, int, int]:
    """Return (None, n, n) for ``count`` = n * n tokens per frame; raises `StvideoError` if it is not a square."""
    side = math.isqrt(count) if isinstance(count, int) and count > 0 else 0
    if side * side != count or side == 0:
        near = sorted({max(side, 1) ** 2, (side + 1) ** 2})
        raise StvideoError(f"{name}: {count!r} semantic tokens make no square grid; try {' or '.join(map(str, near))}")
    return None, side, side


def check_grid(name: str, grid: Sequence[int | None], host: Host) -> tuple[int | None, int, int]:
    """Check that ``grid`` is (t or None, h, w) and fits the model; raises `StvideoError` otherwise."""
    values: tuple[Any, ...] = tuple(grid) if isinstance(grid, Sequence) and not isinstance(grid, str) else ()
    numbers = values[1:] if values and values[0] is None else values
    if len(values) != 3 or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in numbers):
        raise StvideoError(f"{name}: grid must be (t, h, w) such as [null, 4, 4], not {grid!r}")
    limits = (host.num_frames, *host.grid)
    if any(n is not None and n > limit for n, limit in zip(values, limits, strict=True)):
        raise StvideoError(
            f"{name}: the semantic grid {list(values)} is larger than the model's {list(limits)} patch grid "
            "(frames, rows, columns)"
        )
    return values[0], values[1], values[2]


def check_grids(name: str, grids: Any, host: Host) -> list[tuple[int | None, int, int]]:
    """Check ``grids`` one by one and put the one of most tokens last; an empty list for None."""
    if grids is None:
        return []
    if not isinstance(grids, (list, tuple)) or not grids:
        raise StvideoError(f"{name}: grids must be a list of (t, h, w) such as [[8, 2, 2], [8, 4, 4]], not {grids!r}")
    checked = [check_grid(name, grid, host) for grid in grids]
    return sorted(checked, key=lambda grid: math.prod(grid[1:]) * (grid[0] or host.num_frames))
