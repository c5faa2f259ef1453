"""Methods that score tokens, keep the best and drop or fuse the rest: a score is all that each of them adds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from stvideo.core.errors import StvideoError
from stvideo.core.tokens import Tokens
from stvideo.reduction.base import Reduction
from stvideo.reduction.checks import check_count, check_share, snap, spread_layers
from stvideo.reduction.hooks import AttentionInfo, Budget, Host

SCOPES = ("tube", "frame", "clip")


class KeepOrDrop(Reduction):
    """Keep the tokens of highest score in each of some layers (EViT, sections 3.1 and 3.2, for any score).

    A sub-class implements `score` and says in ``needs`` which by-products of attention it reads. It acts between the
    attention and the feed-forward part of its layers; for another place override `before` to call `reorganize` and
    set ``mid = Reduction.mid``.

    On video the paper leaves open which tokens compete. Here:
        tube   the score is averaged over frames and the same positions stay in every frame, so that the token grid
               stays rectangular for divided attention; each frame's fused token is weighted by that frame's own
               scores, and the fused tokens of all frames form one more position for temporal attention.
        frame  each frame keeps its own tokens (divided and space-only attention). Temporal attention then runs among
               the tokens at one place in the frames that kept it.
        clip   all tokens of the clip compete (joint attention only).

    Args:
        host: the model.
        keep_rate: share of the tokens present that each layer keeps, in (0, 1]; one number or one per layer.
            1 is exactly the dense model. Default 0.7.
        tokens: instead of ``keep_rate``, how many tokens each layer keeps; one number or one per layer. They are
            counted per frame, or per clip for scope ``clip``.
        layers: blocks after whose attention tokens are dropped; default 3, 6, 9 of 12 and 4, 8, 12 of 16.
        fuse: add one token, the sum of score times token over those dropped (per frame for ``tube``).
        scope: ``tube``, ``frame`` or ``clip``; default ``clip`` for joint attention, else ``tube``.
        shrink_start_epoch: training keeps every token until then. EViT trains 300 epochs with 10.
        shrink_epochs: epochs in which the rate then falls to ``keep_rate`` along a cosine (EViT: 100).
            0, as for fine-tuning a trained model, is no schedule. Evaluation always uses ``keep_rate`` itself.

    Raises:
        StvideoError: a rate outside (0, 1], a layer outside the network, a scope that does not fit the attention,
            or a range together with a schedule.
    """

    budgets = {"keep_rate": Budget("share", dense=1.0), "tokens": Budget("count")}  # noqa: RUF012
    fuses: ClassVar[bool] = False  # default of ``fuse``

    def __init__(
        self,
        host: Host,
        *,
        keep_rate: float | Sequence[float] | None = None,
        tokens: int | Sequence[int] | None = None,
        layers: Sequence[int] | int | None = None,
        fuse: bool | None = None,
        scope: str | None = None,
        shrink_start_epoch: float = 0.0,
        shrink_epochs: float = 0.0,
    ) -> None:
        super().__init__(host, layers=spread_layers(host.depth) if layers is None else layers)
        if tokens is not None and keep_rate is not None:
            raise StvideoError(f"{self.name}: give keep_rate or tokens, not both")
        rates = per_layer(self.name, "keep_rate", 0.7 if keep_rate is None else keep_rate, self.layers)
        self.keep_rates = tuple(check_share(self.name, "keep_rate", rate) for rate in rates)
        self.tokens: tuple[int, ...] | None = None
        if tokens is not None:
            counts = per_layer(self.name, "tokens", tokens, self.layers)
            self.tokens = tuple(check_count(self.name, "tokens", count, least=1) for count in counts)
        self.scope = check_scope(self.name, scope, host.attention)
        self.fuse = self.fuses if fuse is None else bool(fuse)
        if shrink_start_epoch < 0 or shrink_epochs < 0:
            raise StvideoError(f"{self.name}: shrink_start_epoch and shrink_epochs must not be negative")
        self.shrink_start_epoch, self.shrink_epochs = shrink_start_epoch, shrink_epochs

    def score(self, layer: int, tokens: Tokens, info: AttentionInfo) -> Tensor:
        """Score the patch tokens, higher is kept. (B, F, N, C) patches -> (B, F, N) float."""
        raise NotImplementedError

    def mid(self, layer: int, tokens: Tokens, info: AttentionInfo) -> Tokens:
        return self.reorganize(layer, tokens, info)

    def reorganize(self, layer: int, tokens: Tokens, info: AttentionInfo) -> Tokens:
        """Keep K of the (B, F, N, C) patch tokens: (B, F, K, C), or K + 1 with fusion."""
        groups = tokens.patches.shape[1]
        own_score = self.score(layer, tokens, info)
        tokens = group_by_frame(tokens, self.scope)
        own_score = own_score.reshape(tokens.patches.shape[:3])
        score = own_score if tokens.valid is None else own_score.masked_fill(~tokens.valid, -torch.inf)
        if self.scope == "tube":
            if not tokens.aligned:
                raise StvideoError(
                    f"{self.name}: scope 'tube' needs the same tokens in every frame, but a reduction "
                    "before it chose them frame by frame"
                )
            score = score.mean(dim=1, keepdim=True)
        count = own_score.shape[2]
        keep = self.num_kept(layer, count)
        kept = None if keep == count else select_topk(score, keep).expand(-1, own_score.shape[1], -1)
        weight = None
        if self.fuse:
            weight = own_score if tokens.valid is None else own_score * tokens.valid
        tokens = keep_tokens(tokens, layer, self.name, kept, score.expand_as(own_score), weight, self.scope != "frame")
        return restore_groups(tokens, groups)

    def num_kept(self, layer: int, count: int) -> int:
        """Return K of the ``count`` tokens that reach ``layer``: ceil(keep_rate * n), or the fixed count."""
        place = self.layers.index(layer)
        if self.tokens is not None:
            return min(self.tokens[place], count)
        return num_kept(self.keep_rates[place], count)

    @property
    def has_schedule(self) -> bool:
        return self.shrink_start_epoch > 0 or self.shrink_epochs > 0

    def set_epoch(self, epoch: float) -> None:
        if not self.has_schedule or self.options.get("tokens") is not None:
            return
        start, duration, levels = self.shrink_start_epoch, self.shrink_epochs, self.budget_levels
        final = per_layer(self.name, "keep_rate", self.options.get("keep_rate") or 0.7, self.layers)
        self.train_with({"keep_rate": [keep_rate_at(epoch, rate, start, duration, levels) for rate in final]})

    def state_summary(self) -> dict[str, float]:
        return {} if self.tokens is not None else {"keep_rate": sum(self.keep_rates) / len(self.keep_rates)}


def num_kept(keep_rate: float, count: int) -> int:
    """Return K = ceil(keep_rate * n) of the n tokens present (EViT, section 3.2). A plain integer, at least 1."""
    return max(1, math.ceil(keep_rate * count))


def keep_rate_at(
    epoch: float, base: float, start_epoch: float, shrink_epochs: float, levels: int | None = None
) -> float:
    """Return the keep rate at a point of training (EViT, section 4.1).

    1 until ``start_epoch``, then half a cosine down to ``base`` over ``shrink_epochs``, then ``base``.

    Args:
        epoch: epochs trained so far; the fraction counts, so that the rate changes every iteration.
        base: the final keep rate, in (0, 1].
        start_epoch: epochs before the shrinking starts.
        shrink_epochs: epochs that the shrinking takes; 0 means at once.
        levels: how many different rates there may be, 1 and ``base`` among them; None for as many as iterations.
    """
    if epoch < start_epoch:
        return 1.0
    if epoch >= start_epoch + shrink_epochs:
        return base
    progress = (epoch - start_epoch) / shrink_epochs
    return base + (1.0 - base) * snap(0.5 * (1.0 + math.cos(math.pi * progress)), levels)


def select_topk(score: Tensor, k: int) -> Tensor:
    """Return positions of the ``k`` largest scores along the last dimension, by falling score. (..., N) -> (..., k)."""
    return score.topk(k, dim=-1, largest=True, sorted=True).indices


def fuse_inattentive(patches: Tensor, score: Tensor, kept: Tensor) -> Tensor:
    """Sum score times token over all tokens that are *not* kept (EViT, equation 4).

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


def per_layer(name: str, key: str, value: Any, layers: Sequence[int]) -> tuple[Any, ...]:
    """Return one value per layer from one for all or one each; raises `StvideoError` for another number of them."""
    if not isinstance(value, (list, tuple)):
        return (value,) * len(layers)
    if len(value) != len(layers):
        raise StvideoError(f"{name}: {len(value)} values of {key} for {len(layers)} layers; give one, or one per layer")
    return tuple(value)


def check_scope(name: str, scope: str | None, attention: str) -> str:
    """Return the scope to use with a kind of attention, None meaning its default; raises if it does not fit."""
    if scope is None:
        return "clip" if attention == "joint" else "tube"
    if scope not in SCOPES:
        raise StvideoError(f"{name}: scope must be 'tube', 'frame' or 'clip', not {scope!r}")
    if scope == "frame" and attention == "joint":
        raise StvideoError(
            f"{name}: scope 'frame' needs divided or space-only attention; under joint attention the tokens of all "
            "frames are in one sequence (use scope 'clip' or 'tube')"
        )
    if scope == "clip" and attention != "joint":
        raise StvideoError(
            f"{name}: scope 'clip' needs joint attention, the only one in which all tokens of a clip are in one "
            f"sequence; this model has {attention} attention (use scope 'tube')"
        )
    return scope


def group_by_frame(tokens: Tokens, scope: str) -> Tokens:
    """Regroup by frame for ``tube`` under joint attention; other tokens stay as they are.

    Tube selection keeps equally many tokens in every frame, so a sequence that is cut only by it stays frame by frame.
    """
    frames = tokens.grid[0]
    if scope != "tube" or tokens.patches.shape[1] == frames:
        return tokens
    return tokens.regroup(frames)


def restore_groups(tokens: Tokens, groups: int) -> Tokens:
    """Undo `group_by_frame`: ``groups`` as they were before it."""
    return tokens if tokens.patches.shape[1] == groups else tokens.regroup(groups)


def keep_tokens(
    tokens: Tokens,
    layer: int | str,
    method: str,
    kept: Tensor | None,
    score: Tensor | None = None,
    fuse_weight: Tensor | None = None,
    aligned: bool = True,
) -> Tokens:
    """Keep the tokens at ``kept``, fuse or drop the rest, and write the trace.

    Args:
        tokens: those that entered the layer; (B, F, N, C) patches.
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
    chosen = tokens.gather(kept, aligned=aligned)
    if fuse_weight is not None:
        size = None if tokens.size is None else tokens.sizes().scatter(-1, kept, 0.0).sum(dim=2, keepdim=True)
        chosen = chosen.append(fuse_inattentive(tokens.patches, fuse_weight, kept), size)
    _trace_kept(tokens, layer, method, chosen.patches.shape[2], kept, score, fuse=fuse_weight is not None)
    return chosen


def _trace_kept(
    tokens: Tokens, layer: int | str, method: str, count: int, kept: Tensor | None, score: Tensor | None, fuse: bool
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
