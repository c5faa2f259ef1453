"""Choosing which tokens live on: pure functions on rectangular token sets, shared by all keep-or-drop methods."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from stvideo.core.errors import StvideoError
from stvideo.core.layers import gather_tokens
from stvideo.core.parts import part
from stvideo.core.tokens import Tokens
from stvideo.reduction.base import Host, check_unit

Scope = Literal["tube", "frame", "clip"]


def num_kept(keep_rate: float, count: int) -> int:
    """K = ceil(keep_rate * n) of the n tokens present (EViT, section 3.2). A plain integer, at least 1."""
    return max(1, math.ceil(keep_rate * count))


@part("top-k", reduction=True)
def select_topk(score: Tensor, k: int) -> Tensor:
    """Positions of the ``k`` largest scores along the last dimension, by falling score. (..., N) -> (..., k) int64."""
    return score.topk(k, dim=-1, largest=True, sorted=True).indices


@part("fusion", reduction=True)
def fuse_inattentive(patches: Tensor, score: Tensor, kept: Tensor) -> Tensor:
    """The fused token: the sum of score times token over all tokens that are *not* kept (EViT, equation 4).

    The scores are used as they are, not renormalised, as in the authors' code. Setting the kept tokens' weights to
    zero and summing over all tokens needs no sorted complement.

    Args:
        patches: (B, F, N, C).
        score: (B, F, N) attention of each group's own class token.
        kept: (B, F, K) int64.

    Returns:
        (B, F, 1, C).
    """
    weight = score.scatter(-1, kept, 0.0).to(patches.dtype)
    return weight.unsqueeze(-2) @ patches


def check_scope(name: str, scope: str | None, host: Host) -> Scope:
    """The scope to use with this model, ``None`` meaning its default; raises `StvideoError` if it does not fit."""
    if scope is None:
        return "clip" if host.attention == "joint" else "tube"
    if scope not in ("tube", "frame", "clip"):
        raise StvideoError(f"{name}: scope must be 'tube', 'frame' or 'clip', not {scope!r}")
    if scope == "frame" and host.attention == "joint":
        raise StvideoError(
            f"{name}: scope 'frame' needs divided or space-only attention; under joint attention the tokens of all "
            "frames stand in one sequence (use scope 'clip' or 'tube')"
        )
    if scope == "clip" and host.attention != "joint":
        raise StvideoError(
            f"{name}: scope 'clip' needs joint attention, the only one in which all tokens of a clip stand in one "
            f"sequence; this model has {host.attention} attention (use scope 'tube')"
        )
    return scope  # type: ignore[return-value]


def check_rates(name: str, keep_rate: float | Sequence[float], layers: Sequence[int]) -> tuple[float, ...]:
    """One keep rate per layer, each in (0, 1]; raises `StvideoError` otherwise."""
    if isinstance(keep_rate, (list, tuple)):
        if len(keep_rate) != len(layers):
            raise StvideoError(
                f"{name}: {len(keep_rate)} keep rates for {len(layers)} layers; give one rate, or one per layer"
            )
        return tuple(check_unit(name, "keep_rate", rate) for rate in keep_rate)
    return (check_unit(name, "keep_rate", keep_rate),) * len(layers)  # type: ignore[arg-type]


def check_counts(name: str, tokens: int | Sequence[int], layers: Sequence[int]) -> tuple[int, ...]:
    """One token count per layer, each at least 1; raises `StvideoError` otherwise."""
    counts = tuple(tokens) if isinstance(tokens, (list, tuple)) else (tokens,) * len(layers)
    if len(counts) != len(layers):
        raise StvideoError(f"{name}: {len(counts)} token counts for {len(layers)} layers; give one, or one per layer")
    if not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in counts):
        raise StvideoError(f"{name}: tokens must be positive whole numbers, not {tokens!r}")
    return counts  # type: ignore[return-value]


def group_by_frame(tokens: Tokens, scope: Scope) -> Tokens:
    """For ``tube`` under joint attention: the clip's one group seen as one group per frame, else ``tokens`` as it is.

    Tube selection keeps equally many tokens in every frame, so a sequence that is cut only by it stays frame by frame.
    """
    frames = tokens.grid[0]
    if scope != "tube" or tokens.patches.shape[1] == frames:
        return tokens
    return tokens.replace(patches=split_frames(tokens.patches, frames), index=split_frames(tokens.indices(), frames))


def restore_groups(tokens: Tokens, groups: int) -> Tokens:
    """Undo `group_by_frame`: ``groups`` as they were before it."""
    if tokens.patches.shape[1] == groups:
        return tokens
    batch, _, _, dim = tokens.patches.shape
    return tokens.replace(
        patches=tokens.patches.reshape(batch, groups, -1, dim), index=tokens.indices().reshape(batch, groups, -1)
    )


def split_frames(x: Tensor, frames: int) -> Tensor:
    """(B, 1, T*n, ...) -> (B, T, n, ...)."""
    return x.reshape(x.shape[0], frames, -1, *x.shape[3:])


def keep_tokens(
    tokens: Tokens,
    layer: int,
    method: str,
    kept: Tensor | None,
    score: Tensor | None = None,
    fuse_weight: Tensor | None = None,
    aligned: bool = True,
) -> Tokens:
    """Keep the tokens at ``kept``, fuse or drop the rest, and write the trace.

    Args:
        tokens: what entered the layer; (B, F, N, C) patches.
        layer: block number, for the trace.
        method: name of the reduction, for the trace.
        kept: (B, F, K) int64, or None to keep all of them as they are.
        score: (B, F, N), for the trace only.
        fuse_weight: (B, F, N) weights of the fused token, or None to drop.
        aligned: whether ``kept`` is the same in every group.

    Returns:
        Tokens with (B, F, K, C) patches, one more with fusion.
    """
    if kept is None:
        _trace_kept(tokens, layer, method, tokens.patches.shape[2], None, score, fuse=False)
        return tokens
    index = tokens.indices()
    new_index = index.expand(kept.shape[0], -1, -1).gather(-1, kept)
    patches = gather_tokens(tokens.patches, kept)
    if fuse_weight is not None:
        patches = torch.cat((patches, fuse_inattentive(tokens.patches, fuse_weight, kept)), dim=2)
        fused_index = new_index.new_full((*new_index.shape[:2], 1), -1 - tokens.fusions)
        new_index = torch.cat((new_index, fused_index), dim=2)
    _trace_kept(tokens, layer, method, patches.shape[2], kept, score, fuse=fuse_weight is not None)
    return tokens.replace(
        patches=patches,
        index=new_index,
        fusions=tokens.fusions + (fuse_weight is not None),
        aligned=tokens.aligned and aligned,
    )


def _trace_kept(
    tokens: Tokens, layer: int, method: str, count: int, kept: Tensor | None, score: Tensor | None, fuse: bool
) -> None:
    """Record that the tokens at ``kept`` come first in their group, in that order, and the rest last or nowhere."""
    if tokens.trace is None:
        return
    batch, groups, before, _ = tokens.patches.shape
    first = torch.arange(groups, device=tokens.patches.device).view(1, groups, 1) * count
    if kept is None:
        kept = torch.arange(before, device=first.device).expand(batch, groups, before)
    rank = torch.arange(kept.shape[2], device=first.device) + first
    lost = first + count - 1 if fuse else torch.full_like(first, -1)
    moved_to = lost.expand(batch, groups, before).clone().scatter_(2, kept, rank.expand_as(kept))
    is_lost = torch.ones_like(moved_to, dtype=torch.bool).scatter_(2, kept, False)
    tokens.trace.record(
        layer,
        method,
        moved_to.flatten(1),
        fused=is_lost.flatten(1) if fuse else None,
        score=None if score is None else score.flatten(1),
    )
