"""The transformer block of all ViTs: attention in space, the hooks of reductions, feed-forward part."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stvideo.core.layers import (
    Attention,
    DropPath,
    LayerScale,
    Mlp,
    attention_weights,
    class_attention_row,
    fold_scale,
    head_attention_weights,
    policy_attention,
)
from stvideo.core.rope import Rope
from stvideo.core.tokens import Tokens
from stvideo.reduction.base import Reduction
from stvideo.reduction.hooks import AttentionInfo

NO_NEEDS: frozenset[str] = frozenset()
READERS = frozenset(("mid", "queries"))
"""Hooks that are given the by-products of attention."""


class Block(nn.Module):
    """Pre-norm transformer block whose attention runs inside each token group.

    Arguments are those of `VisionTransformer`, but ``drop_path_rate`` is this block's own (drawn per clip) and ``rope``
    is the `Rope` itself.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        mlp_ratio: float = 4.0,
        mlp: str = "gelu",
        qkv_bias: bool | str = True,
        rope: Rope | None = None,
        qk_norm: bool = False,
        layer_scale: float | None = None,
        residual_scale: float = 1.0,
        drop_path_rate: float = 0.0,
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.rope = rope
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = Attention(dim, num_heads, qkv_bias, qk_norm, norm_eps)
        self.ls1: nn.Module = nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), mlp)
        self.ls2: nn.Module = nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)
        self.drop_path = DropPath(drop_path_rate, residual_scale)

    def fold(self) -> None:
        """Fold the constant factors on both branches into the projections before them; for inference only."""
        for linear, scale in ((self.attn.proj, self.ls1), (self.mlp.fc2, self.ls2)):
            if isinstance(scale, LayerScale):
                fold_scale(linear, scale.gamma)
            fold_scale(linear, self.drop_path.scale)
        self.ls1, self.ls2, self.drop_path = nn.Identity(), nn.Identity(), DropPath()

    def rotate(self, x: Tensor, tokens: Tokens, place: Tensor | None = None) -> Tensor:
        """Rotate queries or keys (B F, h, L, d) by the places of their tokens, if the model has rotary positions.

        Args:
            x: of the prefix and patch tokens of every group.
            tokens: these tokens.
            place: (B or 1, F, L) int64, places on ``tokens.grid`` where ``x`` is of other tokens; see `Rope.rotate`.
        """
        if self.rope is None:
            return x
        if place is None:
            own = tokens.indices()[:1] if tokens.index is None else tokens.index
            place = F.pad(own, (tokens.num_prefix, 0), value=-1)
        return self.rope.rotate(x, place, tokens.grid, tokens.extent or tokens.grid)

    def project_qkv(self, tokens: Tokens, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normalise, project and rotate ``x``, the sequences of ``tokens``, to q, k, v, (B F, h, P + N, d)."""
        q, k, v = self.attn.project_qkv(self.norm1(x.flatten(0, 1)))
        return self.rotate(q, tokens), self.rotate(k, tokens), v

    def attention_rows(self, tokens: Tokens, of_class: bool) -> Tensor:
        """Compute the attention row of the class token, or of the mean query of the patch tokens, in every group.

        Returns (B, F, h, N) float32: attention to the patch tokens, after the softmax over these and the prefix.
        """
        q, k, _ = self.project_qkv(tokens, tokens.sequences())
        first, bias = tokens.num_prefix, tokens.attention_bias()
        query = q[:, :, :1]
        if not of_class:
            weight = tokens.sizes().flatten(0, 1)[:, None, None]
            query = weight @ q[:, :, first:].float() / weight.sum(dim=-1, keepdim=True)
        rows = head_attention_weights(query, k, None if bias is None else bias.flatten(0, 1))
        return rows[:, :, 0, first:].unflatten(0, tokens.patches.shape[:2])

    def mix_time(self, tokens: Tokens) -> Tokens:
        """Attend over time, with the residual; nothing here."""
        return tokens

    def mix_space(
        self, tokens: Tokens, layer: int = 0, reductions: Sequence[Reduction] = ()
    ) -> tuple[Tokens, AttentionInfo]:
        """Attend within each group, with the residual, and compute the by-products that ``reductions`` need."""
        needs = NO_NEEDS.union(*(r.needs for r in reductions if r.hooks & READERS))
        x = tokens.sequences()
        if not tokens.shares_prefix:
            tokens = tokens.with_sequences(x)
        q, k, v = self.project_qkv(tokens, x)
        bias = tokens.attention_bias()
        bias = None if bias is None else bias.flatten(0, 1)
        info = attention_info(tokens, q, k, v, bias, needs) if needs else AttentionInfo()
        asking = tokens
        for reduction in reductions:
            if "queries" in reduction.hooks:
                asking = reduction("queries", layer, asking, info)
        if asking is not tokens:
            x = asking.sequences()
            q = self.rotate(self.attn.project_q(self.norm1(x.flatten(0, 1))), asking)
        if tokens.policy is not None:
            seen = F.pad(tokens.policy, (tokens.num_prefix, 0), value=1.0).flatten(0, 1)
            out = self.attn.join_heads(policy_attention(q, k, v, seen, bias))
        else:
            out = self.attn.attend(q, k, v, None if bias is None else bias.to(q.dtype)[:, None, None])
        return self.add_residual(asking, self.drop_path(self.ls1(out).view(x.shape))), info

    def add_residual(self, tokens: Tokens, out: Tensor) -> Tokens:
        """Add (B, F, P + N, C) to the tokens; a class token that the groups share gets their average."""
        if tokens.joined is not None:
            return tokens.with_sequences(tokens.joined + out)
        count = tokens.num_prefix
        out_prefix = out[:, :, :count]
        if tokens.prefix.shape[1] != out.shape[1]:
            out_prefix = out_prefix.mean(dim=1, keepdim=True)
        return tokens.replace(prefix=tokens.prefix + out_prefix, patches=tokens.patches + out[:, :, count:])

    def feed_forward(self, tokens: Tokens, scale: nn.Module | None = None) -> Tokens:
        """Run the feed-forward part with its residual, optionally scaled."""

        def branch(x: Tensor) -> Tensor:
            out = self.ls2(self.mlp(self.norm2(x)))
            return out if scale is None else scale(out)

        prefix, patches = tokens.prefix, tokens.patches
        if not tokens.shares_prefix:
            x = tokens.sequences()
            return tokens.with_sequences(x + self.drop_path(branch(x)))
        if not torch.compiler.is_compiling() and patches.numel() < self.mlp.fc1.weight.numel():
            # One product for all of few tokens: reading the weights once more costs more than copying the tokens.
            rows = branch(torch.cat((prefix.reshape(-1, prefix.shape[-1]), patches.reshape(-1, patches.shape[-1]))))
            split = prefix.shape[0] * prefix.shape[1] * prefix.shape[2]
            prefix_out, patches_out = rows[:split].view(prefix.shape), rows[split:].view(patches.shape)
        else:
            prefix_out, patches_out = branch(prefix), branch(patches)
        return tokens.replace(prefix=prefix + self.drop_path(prefix_out), patches=patches + self.drop_path(patches_out))

    def forward(self, tokens: Tokens, layer: int, reductions: Sequence[Reduction] = ()) -> Tokens:
        """Run attention and the feed-forward part, and the hooks of ``reductions`` at their places."""
        for reduction in reductions:
            if "before" in reduction.hooks:
                tokens = reduction("before", layer, tokens)
        tokens, info = self.mix_space(self.mix_time(tokens), layer, reductions)
        for reduction in reductions:
            if "mid" in reduction.hooks:
                tokens = reduction("mid", layer, tokens, info)
        return self.feed_forward(tokens)


def attention_info(
    tokens: Tokens, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, needs: frozenset[str]
) -> AttentionInfo:
    """Compute the by-products of attention named in ``needs``.

    Args:
        tokens: B clips in F groups of P prefix and N patch tokens.
        q, k, v: (B * F, h, P + N, d).
        bias: (B * F, P + N) added to the logits, or None.
    """
    batch, groups = tokens.patches.shape[:2]
    first = tokens.num_prefix
    info = AttentionInfo()
    if "class_attention" in needs:
        info.class_attention = class_attention_row(q[:, :, :1], k, bias)[:, first:].view(batch, groups, -1)
    if needs & {"received_attention", "attention_map"}:
        weights = attention_weights(q, k, bias)
        if "attention_map" in needs:
            info.attention_map = weights.view(batch, groups, *weights.shape[1:])
        if "received_attention" in needs:
            info.received_attention = weights.mean(dim=1)[:, first:].view(batch, groups, -1)
    if "keys" in needs:
        info.keys = k[:, :, first:].unflatten(0, (batch, groups))
    if "values" in needs:
        info.values = v[:, :, first:].unflatten(0, (batch, groups))
    return info
