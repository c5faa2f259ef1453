"""What flows through every model (`Tokens`), and the record of where each patch went (`TokenTrace`).

Shape legend used across the package:
    B clips   T frames   H, W patch rows and columns   F token groups (see `Tokens`)
    P prefix (class) tokens per group   N patch tokens per group   C channels   h attention heads   d channels per head
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

Layer = int | str
"""Key of a trace entry: a block number (from 0) or ``"output"``."""


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
        method: name of the reduction that wrote the entry.
    """

    assign: dict[Layer, Tensor] = field(default_factory=dict)
    fused: dict[Layer, Tensor] = field(default_factory=dict)
    score: dict[Layer, Tensor] = field(default_factory=dict)
    method: dict[Layer, str] = field(default_factory=dict)

    current: Tensor | None = None
    current_fused: Tensor | None = None

    @classmethod
    def start(cls, batch: int, grid: tuple[int, int, int], device: torch.device) -> TokenTrace:
        """A trace in which every patch is its own token."""
        ids = torch.arange(grid[0] * grid[1] * grid[2], device=device).view(1, *grid)
        ids = ids.expand(batch, *grid).clone()
        return cls(current=ids, current_fused=torch.zeros_like(ids, dtype=torch.bool))

    def record(
        self,
        layer: Layer,
        method: str,
        moved_to: Tensor,
        fused: Tensor | None = None,
        score: Tensor | None = None,
    ) -> None:
        """Write the entry of one reduction layer.

        Args:
            layer: block number.
            method: name of the reduction.
            moved_to: (B, n_before) the new id of every token that entered the layer, -1 if dropped.
            fused: (B, n_before) True for tokens that were merged into a fused token here.
            score: (B, n_before) the score of every token that entered the layer.
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
        self._snapshot(layer, method)

    def keep(self, layer: Layer, method: str) -> None:
        """Write the entry of a layer at which nothing moved, or at which earlier tokens came back into ``current``."""
        self._snapshot(layer, method)

    def finish(self) -> TokenTrace:
        """Write the ``"output"`` entry and return the trace."""
        self._snapshot("output", "output")
        return self

    def _snapshot(self, layer: Layer, method: str) -> None:
        assert self.current is not None and self.current_fused is not None
        self.assign[layer] = self.current.clone()
        self.fused[layer] = self.current_fused.clone()
        self.method[layer] = method


@dataclass
class Tokens:
    """A rectangular set of tokens and the grid they came from.

    Tokens are held in F groups, the sequences within which spatial attention runs: one group per frame for
    divided and space-only attention, a single group for joint attention and for images.

    Attributes:
        patches: (B, F, N, C) patch tokens.
        prefix: (B, G, P, C) class tokens, P may be 0. G is 1 where the groups share one class token, else F.
        grid: (T, H, W), the grid on which ``index`` counts.
        index: (B, F, N) int64, flat position t*H*W + y*W + x of each token; -1, -2, ... for the tokens fused by the
            first, second, ... fusion. None while the full grid stands in its natural order.
        fusions: how many fusions there have been.
        aligned: whether token n stands at the same place in every group, so that it can attend over time as it is.
        trace: the record being kept, or None when nobody asked for it.
        joined: (B, F, P + N, C), each group's class tokens and patch tokens side by side, where ``prefix`` and
            ``patches`` are views of such a tensor; else None.
    """

    patches: Tensor
    prefix: Tensor
    grid: tuple[int, int, int]
    index: Tensor | None = None
    fusions: int = 0
    aligned: bool = True
    trace: TokenTrace | None = None
    joined: Tensor | None = None

    def replace(self, **changes: Any) -> Tokens:
        """A copy with some fields changed."""
        if "patches" in changes or "prefix" in changes:
            changes.setdefault("joined", None)
        return replace(self, **changes)

    def sequences(self) -> Tensor:
        """Each group's class tokens and patch tokens side by side, (B, F, P + N, C); a copy only where they are not."""
        if self.joined is not None:
            return self.joined
        batch, groups, _, dim = self.patches.shape
        if self.num_prefix == 0:
            return self.patches
        return torch.cat((self.prefix.expand(batch, groups, -1, dim), self.patches), dim=2)

    def with_sequences(self, x: Tensor) -> Tokens:
        """These tokens with new values (B, F, P + N, C), of which ``prefix`` and ``patches`` become views."""
        count = self.num_prefix
        return self.replace(prefix=x[:, :, :count], patches=x[:, :, count:], joined=x)

    def split(self, clips: int) -> list[Tokens]:
        """The batch in parts of at most ``clips`` clips; without a trace."""
        if clips >= self.patches.shape[0]:
            return [self]
        patches, prefixes = self.patches.split(clips), self.prefix.split(clips)
        indices = [None] * len(patches) if self.index is None else self.index.split(clips)
        rows = zip(patches, prefixes, indices, strict=True)
        return [self.replace(patches=x, prefix=prefix, index=index) for x, prefix, index in rows]

    @staticmethod
    def concatenate(parts: Sequence[Tokens]) -> Tokens:
        """One batch of the clips of all ``parts``, which have the same shapes; without a trace."""
        first = parts[0]
        if len(parts) == 1:
            return first
        indices = [part.index for part in parts if part.index is not None]
        return first.replace(
            patches=torch.cat([part.patches for part in parts]),
            prefix=torch.cat([part.prefix for part in parts]),
            index=torch.cat(indices) if indices else None,
        )

    @property
    def num_prefix(self) -> int:
        """P, the number of class tokens in front of each group."""
        return self.prefix.shape[2]

    @property
    def shares_prefix(self) -> bool:
        """Whether several groups have their class tokens in common."""
        return self.num_prefix > 0 and self.prefix.shape[1] != self.patches.shape[1]

    def indices(self) -> Tensor:
        """``index``, spelled out when the full grid stands. Returns (B, F, N) int64."""
        if self.index is not None:
            return self.index
        batch, groups, count, _ = self.patches.shape
        full = torch.arange(groups * count, device=self.patches.device).view(1, groups, count)
        return full.expand(batch, -1, -1)
