"""The control: keep tokens at random. What a method must beat at equal cost to have shown anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from stvideo.core.errors import StvideoError
from stvideo.core.macs import count_macs, to_meta
from stvideo.core.tokens import Tokens
from stvideo.reduction.base import AttentionInfo, Host, Reduction, apply_reduction, register, spread_layers
from stvideo.reduction.base import remove_reduction as make_dense
from stvideo.reduction.schedule import check_rate_range, draw_keep_rate, spread_keep_rates
from stvideo.reduction.selection import (
    check_rates,
    check_scope,
    group_by_frame,
    keep_tokens,
    num_kept,
    restore_groups,
    select_topk,
)


@register("random")
class RandomReduction(Reduction):
    """Keep K = ceil(keep_rate * n) tokens drawn afresh for every clip, in training and in evaluation.

    Args:
        host: the model.
        keep_rate: share of the tokens present that each layer keeps, in (0, 1]; one number or one per layer.
        layers: blocks after whose attention tokens are dropped; default as for ``evit``.
        scope: ``tube`` (the same positions in every frame), ``frame`` (other ones in each) or ``clip`` (joint
            attention only).
        equal_to: instead of ``keep_rate``, the reduction (``{method: options}``) whose cost in GMACs the control
            shall have; the rate is solved for when it is put into the model.
        keep_rate_range: any-budget training, as for ``evit``: every step draws one rate for all layers from it.

    Raises:
        StvideoError: a rate outside (0, 1], a layer outside the network, or a cost that no rate reaches.
    """

    slot = "mid"
    budget_options = ("keep_rate",)

    def __init__(
        self,
        host: Host,
        *,
        keep_rate: float | Sequence[float] = 0.7,
        layers: Sequence[int] | int | None = None,
        scope: str | None = None,
        equal_to: Mapping[str, Any] | None = None,
        keep_rate_range: Sequence[float] | None = None,
    ) -> None:
        super().__init__(host, layers=spread_layers(host.depth) if layers is None else layers)
        if equal_to is not None:
            raise StvideoError(f"{self.name}: equal_to needs the whole model; use stvideo.apply_reduction")
        self.keep_rates = check_rates(self.name, keep_rate, self.layers)
        self.scope = check_scope(self.name, scope, host)
        self.keep_rate_range = check_rate_range(self.name, keep_rate_range)
        self.training_rates = self.keep_rates

    def draw_budget(self, generator: torch.Generator) -> None:
        if self.keep_rate_range is not None:
            rate = draw_keep_rate(self.keep_rate_range, generator, self.budget_levels)
            self.training_rates = (rate,) * len(self.layers)

    def training_budgets(self, count: int) -> list[dict[str, Any]]:
        return spread_keep_rates(self.keep_rate_range, count)

    def copy_budget(self, other: Reduction) -> None:
        assert isinstance(other, RandomReduction)
        self.keep_rates, self.training_rates = other.keep_rates, other.training_rates

    def state_summary(self) -> dict[str, float]:
        return {"keep_rate": sum(self.training_rates) / len(self.training_rates)}

    @classmethod
    def resolve_options(cls, model: nn.Module, options: dict[str, Any]) -> dict[str, Any]:
        options = dict(options)
        target = options.pop("equal_to", None)
        if target is not None:
            if "keep_rate" in options:
                raise StvideoError(f"{cls.name}: give keep_rate or equal_to, not both")
            if not isinstance(target, Mapping):
                raise StvideoError(f"{cls.name}: equal_to must be {{method: options}}, not {target!r}")
            options["keep_rate"] = solve_keep_rate(model, options, target)
        return options

    def forward(self, layer: int, tokens: Tokens, info: AttentionInfo) -> Tokens:
        """Drop all but K random tokens of each group. (B, F, N, C) patches -> (B, F, K, C)."""
        groups = tokens.patches.shape[1]
        tokens = group_by_frame(tokens, self.scope)
        batch, frames, count, _ = tokens.patches.shape
        rates = self.training_rates if self.training else self.keep_rates
        keep = num_kept(rates[self.layers.index(layer)], count)
        kept = None
        if keep < count:
            own = frames if self.scope == "frame" else 1
            draw = torch.rand(batch, own, count, device=tokens.patches.device)
            kept = select_topk(draw, keep).expand(-1, frames, -1)
        aligned = self.scope != "frame"
        return restore_groups(keep_tokens(tokens, layer, self.name, kept, aligned=aligned), groups)


def solve_keep_rate(model: nn.Module, options: Mapping[str, Any], target: Mapping[str, Any], steps: int = 12) -> float:
    """The keep rate at which ``random`` with ``options`` costs what the dense ``model`` with ``target`` costs.

    Solved by bisection on GMACs counted at the model's own input size; exact up to the rounding of token counts.

    Raises:
        StvideoError: even the smallest rate costs more than the target.
    """
    shape = model.example_shape()  # type: ignore[operator]
    dense = make_dense(to_meta(model))

    def cost(method: str, **settings: Any) -> float:
        trial = to_meta(dense)
        apply_reduction(trial, method, **settings)
        return count_macs(trial, shape).total

    reference = to_meta(dense)
    for method, settings in target.items():
        apply_reduction(reference, method, **(settings or {}))
    wanted = count_macs(reference, shape).total

    low, high = 0.0, 1.0
    tried: dict[float, float] = {}
    for _ in range(steps):
        middle = (low + high) / 2
        tried[middle] = cost(RandomReduction.name, **options, keep_rate=middle)
        low, high = (low, middle) if tried[middle] > wanted else (middle, high)
    best = min(tried, key=lambda rate: abs(tried[rate] - wanted))
    if tried[best] > 1.02 * wanted:
        raise StvideoError(
            f"{RandomReduction.name}: no keep rate brings the model down to the {wanted:.3g} GMACs of "
            f"{', '.join(target)} with these layers; start dropping in an earlier layer"
        )
    return best
