"""Merging tokens by similarity: bipartite matching, and the step that merges and writes the trace.

Bolya et al., "Token Merging: Your ViT But Faster", ICLR 2023, arXiv 2210.09461, section 3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stvideo.core.tokens import Tokens
from stvideo.core.trace import Layer


def match_bipartite(metric: Tensor, r: int, *, first: int = 0, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Pair ``r`` tokens with their most similar ones of the other half (section 3, bipartite soft matching).

    Tokens at even positions propose to those at odd positions, prefix tokens counted; the ``r`` most similar pairs
    merge into the odd one.

    Args:
        metric: (B, F, N, d) what is compared, by cosine.
        r: pairs to merge, at most the number of tokens that propose.
        first: prefix tokens in front of the patch tokens, which shift even and odd.
        valid: (B, F, N) bool, False on padding, which merges with nothing.

    Returns:
        target (B, F, N) int64 in [0, N - r) and representative (B, F, N - r) int64, as `Tokens.merge` takes them:
        the unmerged even tokens in their order, then the odd ones.
    """
    batch, groups, count, _ = metric.shape
    metric = metric / metric.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    place = torch.arange(count, device=metric.device)
    even, odd = place[first % 2 :: 2], place[1 - first % 2 :: 2]
    r = min(r, len(even) if len(odd) else 0)
    similarity = metric[:, :, even] @ metric[:, :, odd].transpose(-2, -1) if len(odd) else metric.new_zeros(1)
    if valid is not None and len(odd):
        similarity = similarity.masked_fill(~(valid[:, :, even, None] & valid[:, :, None, odd]), -torch.inf)
    if r == 0:
        identity = place.expand(batch, groups, count)
        return identity, identity
    best, partner = similarity.max(dim=-1)
    order = best.argsort(dim=-1, descending=True)
    merged, kept = order[..., :r], order[..., r:].sort(dim=-1).values
    num_kept = kept.shape[-1]
    representative = torch.cat((even[kept], odd.expand(batch, groups, -1)), dim=-1)
    target = torch.empty(batch, groups, count, dtype=torch.int64, device=metric.device)
    target.scatter_(-1, even[kept], torch.arange(num_kept, device=metric.device).expand_as(kept))
    target.scatter_(-1, even[merged], num_kept + partner.gather(-1, merged))
    target[:, :, odd] = num_kept + torch.arange(len(odd), device=metric.device)
    return target, representative


def merge_tokens(
    tokens: Tokens,
    layer: Layer,
    method: str,
    target: Tensor,
    representative: Tensor,
    *,
    aligned: bool = False,
    weight: Tensor | None = None,
) -> Tokens:
    """Merge tokens as `Tokens.merge` does, and write the trace.

    Args:
        tokens: those that entered the layer; (B, F, N, C) patches.
        layer: block number, for the trace.
        method: name of the reduction, for the trace.
        target: (B, F, N) int64 in [0, K), the new token of each token.
        representative: (B, F, K) int64, the member whose place the new token takes.
        aligned: whether both are the same in every group.
        weight: (B, F, N) factors on the sizes in the mean.
    """
    if tokens.trace is not None:
        groups, count = tokens.patches.shape[1], representative.shape[2]
        first = torch.arange(groups, device=target.device).view(1, groups, 1) * count
        tokens.trace.record(layer, method, (target + first).flatten(1), kind="merge")
    return tokens.merge(target, representative, aligned=aligned, weight=weight)
