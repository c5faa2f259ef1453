"""EViT: keep the tokens that the class token attends to, fuse the rest into one.

Liang et al., "Expediting Vision Transformers via Token Reorganizations", ICLR 2022, arXiv 2202.07800.

On video the paper leaves open which tokens compete. Here:
    tube   the score is averaged over frames and the same positions stay in every frame, so that the token grid stays
           rectangular for divided attention; each frame's fused token is weighted by that frame's own scores, and
           the fused tokens of all frames form one more position for temporal attention.
    frame  each frame keeps its own tokens (divided and space-only attention). Temporal attention then runs among the
           tokens that stand at one place in the frames that kept it.
    clip   all tokens of the clip compete (joint attention only).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from stvideo.core.errors import StvideoError
from stvideo.core.tokens import Tokens
from stvideo.reduction.base import AttentionInfo, Host, Reduction, register, spread_layers
from stvideo.reduction.schedule import check_rate_range, draw_keep_rate, keep_rate_at, spread_keep_rates
from stvideo.reduction.selection import (
    check_counts,
    check_rates,
    check_scope,
    group_by_frame,
    keep_tokens,
    num_kept,
    restore_groups,
    select_topk,
)


@register("evit")
class ClassAttentionReduction(Reduction):
    """Class-attention token reorganization (EViT, sections 3.1 and 3.2).

    Args:
        host: the model.
        keep_rate: share of the tokens present that each layer keeps, in (0, 1]; one number or one per layer.
            1 is exactly the dense model. Default 0.7.
        tokens: instead of ``keep_rate``, how many tokens each layer keeps; one number or one per layer. They are
            counted per frame, or per clip for scope ``clip``, and are the same in training and evaluation, unless
            ``keep_rate_range`` says what training keeps.
        layers: blocks after whose attention tokens are dropped; default 3, 6, 9 of 12 and 4, 8, 12 of 16.
        fuse: add one token, the attention-weighted sum of those dropped (per frame for ``tube``).
        scope: ``tube``, ``frame`` or ``clip``; default ``clip`` for joint attention, else ``tube``.
        shrink_start_epoch: training keeps every token until then. The paper trains 300 epochs with 10.
        shrink_epochs: epochs in which the rate then falls to ``keep_rate`` along a cosine (the paper: 100).
            0, as for fine-tuning a trained model, is no schedule. Evaluation always uses ``keep_rate`` itself.
        keep_rate_range: any-budget training: instead of a schedule, every step draws one rate for all layers from this
            range, so that the same weights serve all of it.

    Raises:
        StvideoError: a rate outside (0, 1], a layer outside the network, a scope that does not fit the attention,
            a range together with a schedule, or a model without a class token.
    """

    slot = "mid"
    needs = frozenset({"class_attention"})
    budget_options = ("keep_rate", "tokens")

    def __init__(
        self,
        host: Host,
        *,
        keep_rate: float | Sequence[float] | None = None,
        tokens: int | Sequence[int] | None = None,
        layers: Sequence[int] | int | None = None,
        fuse: bool = True,
        scope: str | None = None,
        shrink_start_epoch: float = 0.0,
        shrink_epochs: float = 0.0,
        keep_rate_range: Sequence[float] | None = None,
    ) -> None:
        super().__init__(host, layers=spread_layers(host.depth) if layers is None else layers)
        if host.num_prefix == 0:
            raise StvideoError(f"{self.name}: the model has no class token whose attention could score the patches")
        if tokens is not None and keep_rate is not None:
            raise StvideoError(f"{self.name}: give keep_rate or tokens, not both")
        self.keep_rates = check_rates(self.name, 0.7 if keep_rate is None else keep_rate, self.layers)
        self.tokens = None if tokens is None else check_counts(self.name, tokens, self.layers)
        self.scope = check_scope(self.name, scope, host)
        self.fuse = bool(fuse)
        if shrink_start_epoch < 0 or shrink_epochs < 0:
            raise StvideoError(f"{self.name}: shrink_start_epoch and shrink_epochs must not be negative")
        self.shrink_start_epoch = shrink_start_epoch
        self.shrink_epochs = shrink_epochs
        self.keep_rate_range = check_rate_range(self.name, keep_rate_range)
        if self.keep_rate_range is not None and (shrink_start_epoch or shrink_epochs):
            raise StvideoError(f"{self.name}: keep_rate_range draws the rate of every step; give no schedule beside it")
        self.training_rates = self.keep_rates

    def set_epoch(self, epoch: float) -> None:
        if self.keep_rate_range is None:
            start, duration, levels = self.shrink_start_epoch, self.shrink_epochs, self.budget_levels
            self.training_rates = tuple(keep_rate_at(epoch, base, start, duration, levels) for base in self.keep_rates)

    def draw_budget(self, generator: torch.Generator) -> None:
        if self.keep_rate_range is not None:
            rate = draw_keep_rate(self.keep_rate_range, generator, self.budget_levels)
            self.training_rates = (rate,) * len(self.layers)

    def training_budgets(self, count: int) -> list[dict[str, Any]]:
        return spread_keep_rates(self.keep_rate_range, count)

    def copy_budget(self, other: Reduction) -> None:
        assert isinstance(other, ClassAttentionReduction)
        self.keep_rates, self.tokens, self.training_rates = other.keep_rates, other.tokens, other.training_rates

    def state_summary(self) -> dict[str, float]:
        return {"keep_rate": sum(self.training_rates) / len(self.training_rates)}

    def num_kept(self, layer: int, count: int) -> int:
        """K of the ``count`` tokens that reach ``layer``: by the schedule in training, by the final rate otherwise."""
        place = self.layers.index(layer)
        drawn = self.training and self.keep_rate_range is not None
        if self.tokens is not None and not drawn:
            return min(self.tokens[place], count)
        return num_kept((self.training_rates if self.training else self.keep_rates)[place], count)

    def forward(self, layer: int, tokens: Tokens, info: AttentionInfo) -> Tokens:
        """Reorganize the (B, F, N, C) patch tokens to (B, F, K, C), or K + 1 with fusion."""
        assert info.class_attention is not None
        groups = tokens.patches.shape[1]
        tokens = group_by_frame(tokens, self.scope)
        own_score = info.class_attention.reshape(tokens.patches.shape[:3])
        score = own_score
        if self.scope == "tube":
            if not tokens.aligned:
                raise StvideoError(f"{self.name}: scope 'tube' cannot follow a reduction of scope 'frame'")
            score = own_score.mean(dim=1, keepdim=True)
        count = own_score.shape[2]
        keep = self.num_kept(layer, count)
        kept = None if keep == count else select_topk(score, keep).expand(-1, own_score.shape[1], -1)
        tokens = keep_tokens(
            tokens,
            layer,
            self.name,
            kept,
            score.expand_as(own_score),
            fuse_weight=own_score if self.fuse else None,
            aligned=self.scope != "frame",
        )
        return restore_groups(tokens, groups)
