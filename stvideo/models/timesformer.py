"""TimeSformer: a ViT on clips with divided, joint or space-only attention.

Bertasius et al., "Is Space-Time Attention All You Need for Video Understanding?", ICML 2021, arXiv 2102.05095.
Parameter names are those of the released checkpoints. Differences from the paper's code: stochastic depth drops a
branch for a whole clip (theirs for single frames and positions); embeddings of another size are resized bicubically
in space and linearly in time (theirs: to the nearest).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from stvideo.layers import Attention, gather_tokens, resize_time_embedding
from stvideo.models.block import Block
from stvideo.models.vit import VisionTransformer
from stvideo.tokens import Tokens


class DividedBlock(Block):
    """Attention over time at each position, then over space in each frame, then the feed-forward part.

    The class token takes no part in temporal attention; in spatial attention it stands in every frame, and its
    outputs are averaged over frames.
    """

    def __init__(self, dim: int, num_heads: int, **options: Any) -> None:
        super().__init__(dim, num_heads, **options)
        self.temporal_norm1 = nn.LayerNorm(dim, eps=self.norm1.eps)
        qk_norm = isinstance(self.attn.q_norm, nn.LayerNorm)
        self.temporal_attn = Attention(dim, num_heads, self.attn.qkv.bias is not None, qk_norm, self.norm1.eps)
        self.temporal_fc = nn.Linear(dim, dim)

    def mix_time(self, tokens: Tokens) -> Tokens:
        """Attention over the tokens that stand at one place in several frames, with its residual.

        Where every frame kept the same places these are the T tokens of a column. Where each frame kept its own,
        keys, queries and values go to their places on the full grid, and absent tokens are masked; the projections,
        which are nearly all of the cost, run on the tokens that exist.
        """
        patches = tokens.patches
        batch, frames, _, dim = patches.shape
        heads = self.temporal_attn.num_heads
        qkv = self.temporal_attn.qkv(self.temporal_norm1(patches))
        mask, place = None, None
        if not tokens.aligned:
            place, places = token_places(tokens)
            rows = place.unsqueeze(-1).expand(-1, -1, -1, 3 * dim)
            qkv = qkv.new_zeros(batch, frames, places, 3 * dim).scatter(2, rows, qkv)
            mask = patches.new_zeros(batch, frames, places, dtype=torch.bool).scatter(2, place, True)
            mask = mask.transpose(1, 2).reshape(batch * places, 1, 1, frames)
            # An empty place has no key at all; let its (unused) queries see the zeros there instead of dividing by 0.
            mask = mask | ~mask.any(dim=-1, keepdim=True)
        q, k, v = rearrange(qkv, "b t n (three h d) -> three (b n) h t d", three=3, h=heads).unbind(0)
        q, k = self.temporal_attn.q_norm(q), self.temporal_attn.k_norm(k)
        out = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out = rearrange(out, "(b n) h t d -> b t n (h d)", b=batch)
        if place is not None:
            out = gather_tokens(out, place)
        return tokens.replace(patches=patches + self.drop_path(self.temporal_fc(self.temporal_attn.proj(out))))


def token_places(tokens: Tokens) -> tuple[Tensor, int]:
    """Where in its frame each token stands, fused tokens behind the grid.

    Returns:
        (B, T, N) int64 in [0, places), and the number of places.
    """
    cells = tokens.grid[1] * tokens.grid[2]
    index = tokens.indices()
    place = torch.where(index >= 0, index % cells, cells - 1 - index)
    return place.expand(tokens.patches.shape[:3]), cells + tokens.fusions


class TimeSformer(VisionTransformer):
    """TimeSformer. Clips (B, 3, T, H, W) to logits (B, num_classes).

    Args:
        attention: ``divided`` (time, then space), ``joint`` (all tokens of the clip in one sequence) or ``space``
            (frames apart, class tokens averaged before the final norm).
        options: as for `VisionTransformer`.
    """

    attention_kinds = ("divided", "joint", "space")

    def __init__(self, *, attention: str = "divided", num_frames: int = 8, **options: Any) -> None:
        super().__init__(attention=attention, num_frames=num_frames, **options)

    def make_block(self, dim: int, num_heads: int, **options: Any) -> Block:
        block_class = DividedBlock if self.attention == "divided" else Block
        return block_class(dim, num_heads, **options)

    def embeddings(self) -> Iterable[nn.Parameter]:
        return [*super().embeddings(), *([] if self.time_embed is None else [self.time_embed])]

    def init_weights(self, scheme: str) -> None:
        with torch.no_grad():
            self.time_embed = None
            if self.attention != "space":
                self.time_embed = nn.Parameter(torch.zeros(1, self.num_frames, self.embed_dim))
            super().init_weights(scheme)
            if scheme == "published":
                if self.time_embed is not None:
                    nn.init.zeros_(self.time_embed)
                self.zero_temporal_fc()

    @torch.no_grad()
    def zero_temporal_fc(self) -> None:
        """Zero ``temporal_fc`` in every block but the first, so that they start as plain spatial blocks."""
        for block in self.blocks[1:]:
            if isinstance(block, DividedBlock):
                nn.init.zeros_(block.temporal_fc.weight)
                nn.init.zeros_(block.temporal_fc.bias)

    def embed_time(self, patches: Tensor) -> Tensor:
        if self.time_embed is None:
            return patches
        return patches + resize_time_embedding(self.time_embed, patches.shape[1]).unsqueeze(2)
