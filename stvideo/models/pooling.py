"""Attentive pooling: the feature of a clip by learned attention over its tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stvideo.core.layers import CrossAttention, Mlp
from stvideo.core.tokens import Tokens
from stvideo.models.block import Block

POOLINGS = ("token", "avg", "fc_norm", "token_avg", "attentive")


class QueryBlock(nn.Module):
    """Cross-attention of queries, which are not normalised, to normalised tokens, then a feed-forward part."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, norm_eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.xattn = CrossAttention(dim, num_heads, project_out=False)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, query: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Queries (B, Q, C), tokens (B, N, C), bias (B, N) added to the logits -> (B, Q, C)."""
        mask = None if bias is None else bias.to(query.dtype)[:, None, None]
        query = query + self.xattn(self.xattn.q(query), self.xattn.kv(self.norm1(x)), mask)
        return query + self.mlp(self.norm2(query))


class AttentivePooler(nn.Module):
    """Self-attention blocks over the patch tokens of a clip, then one learned query that reads them all.

    Assran et al., "V-JEPA 2", arXiv 2506.09985; parameter names are the official ones.

    Args:
        dim: channels C.
        num_heads: attention heads.
        norm_eps: epsilon of the LayerNorms.
        depth: self-attention blocks.
        mlp_ratio: hidden width of the feed-forward parts over C.
    """

    def __init__(self, dim: int, num_heads: int, norm_eps: float, depth: int = 3, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        self.query_tokens = nn.Parameter(torch.zeros(1, 1, dim))
        self.blocks = nn.ModuleList(Block(dim, num_heads, mlp_ratio=mlp_ratio, norm_eps=norm_eps) for _ in range(depth))
        self.cross_attention_block = QueryBlock(dim, num_heads, mlp_ratio, norm_eps)

    def forward(self, tokens: Tokens) -> Tensor:
        """Pool the patch tokens of all groups together; sizes and padding count as in other attention. -> (B, C)."""
        if tokens.patches.shape[1] > 1:
            tokens = tokens.regroup(1)
        tokens = tokens.replace(prefix=tokens.patches[:, :, :0], policy=None)
        for block in self.blocks:
            tokens = block(tokens, 0)
        bias = tokens.attention_bias()
        query = self.query_tokens.expand(tokens.patches.shape[0], -1, -1)
        bias = None if bias is None else bias[:, 0]
        return self.cross_attention_block(query, tokens.patches[:, 0], bias).squeeze(1)
