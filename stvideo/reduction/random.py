"""The control: keep tokens at random. What a method must beat at equal cost to have shown anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from stvideo.core.errors import StvideoError
from stvideo.core.tokens import Tokens
from stvideo.reduction.base import Reducible, register_reduction
from stvideo.reduction.equal_cost import cost_of, solve_budget
from stvideo.reduction.hooks import AttentionInfo, Host
from stvideo.reduction.keep_or_drop import KeepOrDrop

PRIME = 2**31 - 1


@register_reduction("random")
class RandomReduction(KeepOrDrop):
    """Keep K = ceil(keep_rate * n) tokens drawn at random.

    Training draws afresh in every step. In evaluation the draw is a function of the clip's own pixels and the layer,
    so that no clip's score depends on its batch, its order, or the run.

    Args:
        host: the model.
        equal_to: instead of ``keep_rate``, the reduction (``{method: options}``) whose cost in GMACs the control
            shall have; the rate is solved for when it is put into the model.
        options: as for `KeepOrDrop`.

    Raises:
        StvideoError: as for `KeepOrDrop`, or a cost that no rate reaches.
    """

    is_control = True

    def __init__(self, host: Host, *, equal_to: Mapping[str, Any] | None = None, **options: Any) -> None:
        super().__init__(host, **options)
        if equal_to is not None:
            raise StvideoError(f"{self.name}: equal_to needs the whole model; use stvideo.apply_reduction")

    @classmethod
    def resolve_options(cls, model: Reducible, options: dict[str, Any]) -> dict[str, Any]:
        options = dict(options)
        target = options.pop("equal_to", None)
        if target is not None:
            if "keep_rate" in options:
                raise StvideoError(f"{cls.name}: give keep_rate or equal_to, not both")
            if not isinstance(target, Mapping):
                raise StvideoError(f"{cls.name}: equal_to must be {{method: options}}, not {target!r}")
            options["keep_rate"] = solve_budget(model, cls.name, cost_of(model, target), "keep_rate", options)
        return options

    def embed(self, tokens: Tokens, clip: Tensor) -> Tokens:
        if self.training:
            return tokens
        return tokens.replace(per_clip={**tokens.per_clip, "random_seed": clip_seed(clip)})

    def score(self, layer: int, tokens: Tokens, info: AttentionInfo) -> Tensor:
        batch, groups, count, _ = tokens.patches.shape
        own = groups if self.scope == "frame" else 1
        per_group = count // tokens.grid[0] if self.scope == "tube" and groups == 1 else count
        seed = tokens.per_clip.get("random_seed")
        if seed is None:
            draw = torch.rand(batch, own, per_group, device=tokens.patches.device)
        else:
            place = torch.arange(own * per_group, device=seed.device) + 1 + (layer + 1) * 1_000_003
            draw = scramble(seed.view(-1, 1) + place * 7_919).view(batch, own, per_group)
        return draw.expand(batch, groups, -1) if per_group == count else draw.repeat(1, 1, tokens.grid[0])


def clip_seed(clip: Tensor) -> Tensor:
    """Hash the pixels of each clip, (B, 3, T, H, W) float, to (B,) int64: the same whatever batch it is in."""
    values = (clip.float().flatten(1) * 4096.0).round().to(torch.int64)
    weights = torch.arange(values.shape[1], device=clip.device) % 8191 + 1
    return (values * weights).sum(dim=1) % PRIME


def scramble(x: Tensor) -> Tensor:
    """Turn int64 numbers into float32 in [0, 1) that look independent, by arithmetic alone, so that it exports."""
    x = x % PRIME
    for factor in (48_271, 69_621, 16_807):
        x = (x * x + x * factor + 12_345) % PRIME
    return (x % 16_777_216).to(torch.float32) / 16_777_216.0
