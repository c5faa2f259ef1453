"""Record where each patch of a clip went, layer by layer (`TokenTrace`).

Shapes: B clips, T frames (or tubelets), H and W patch rows and columns, n tokens of a clip.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

Layer = int | str
"""Key of a trace entry: a block number (from 0), ``"embed"`` or ``"output"``."""

Kind = Literal["keep", "merge", "semantic"]
"""How tokens carry patches: one each (the rest fused or dropped), several each, or as cluster centres."""


@dataclass
class TokenTrace:
    """Where every patch of every frame went, layer by layer.

    Each mapping has an entry for every reduction layer and one called ``"output"``; every tensor has the
    shape (B, T, H, W) of the patch grid on which the reduction works.

    Attributes:
        assign: id (int64), unique within the clip, of the token that carries the patch; -1 if it was dropped.
        fused: True where the patch lives on only inside a fused token.
        score: the score of the token that carried the patch into this layer, 0 where it was already dropped;
            only for layers whose method scores its tokens.
        kind: ``keep``, ``merge`` or ``semantic``.
        method: name of the reduction that wrote the entry.
    """

    assign: dict[Layer, Tensor] = field(default_factory=dict)
    fused: dict[Layer, Tensor] = field(default_factory=dict)
    score: dict[Layer, Tensor] = field(default_factory=dict)
    kind: dict[Layer, Kind] = field(default_factory=dict)
    method: dict[Layer, str] = field(default_factory=dict)

    current: Tensor | None = None
    current_fused: Tensor | None = None
    current_kind: Kind = "keep"

    @classmethod
    def start(cls, batch: int, grid: tuple[int, int, int], device: torch.device) -> TokenTrace:
        """Start a trace in which every patch is its own token."""
        ids = torch.arange(grid[0] * grid[1] * grid[2], device=device).view(1, *grid)
        ids = ids.expand(batch, *grid).clone()
        return cls(current=ids, current_fused=torch.zeros_like(ids, dtype=torch.bool))

    def record(
        self,
        layer: Layer,
        method: str,
        moved_to: Tensor,
        *,
        kind: Kind = "keep",
        fused: Tensor | None = None,
        score: Tensor | None = None,
    ) -> None:
        """Write the entry of one reduction layer.

        Args:
            layer: block number.
            method: name of the reduction.
            moved_to: (B, n) the new id of every token that entered the layer, -1 if dropped.
            kind: how the new tokens carry patches.
            fused: (B, n) True for tokens that were merged into a fused token here.
            score: (B, n) the score of every token that entered the layer.
        """
        assert self.current is not None and self.current_fused is not None
        old, alive = self.current.flatten(1), self.current.flatten(1) >= 0
        shape = self.current.shape

        def lookup(values: Tensor, absent: float | int | bool) -> Tensor:
            return torch.where(alive, values.gather(1, old.clamp(min=0)), absent).view(shape)

        if score is not None:
            self.score[layer] = lookup(score.float(), 0.0)
        self.current = lookup(moved_to, -1)
        if fused is not None:
            self.current_fused = self.current_fused | lookup(fused, False)
        self.current_fused = self.current_fused & (self.current >= 0)
        if kind != "keep" or self.current_kind == "keep":  # dropping merged tokens leaves the rest merged
            self.current_kind = kind
        self.repeat(layer, method)

    def repeat(self, layer: Layer, method: str) -> None:
        """Write the present assignment as the entry of ``layer``, at which no token moved."""
        assert self.current is not None and self.current_fused is not None
        self.assign[layer] = self.current.clone()
        self.fused[layer] = self.current_fused.clone()
        self.kind[layer] = self.current_kind
        self.method[layer] = method

    def snapshot(self) -> TokenTrace:
        """Return the present assignment, for `restore`."""
        return TokenTrace(current=self.current, current_fused=self.current_fused, current_kind=self.current_kind)

    def restore(self, saved: TokenTrace) -> None:
        """Go back to a saved assignment, where earlier tokens come back or are read afresh; entries stay."""
        self.current, self.current_fused, self.current_kind = saved.current, saved.current_fused, saved.current_kind

    def finish(self) -> TokenTrace:
        """Write the ``"output"`` entry and return the trace."""
        self.repeat("output", "output")
        return self
