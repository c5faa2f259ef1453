"""Tokens, the one thing that flows through every model: values, their place in the clip, and what methods attach.

Shape legend used across the package:
    B clips   T frames   H, W patch rows and columns   F token groups (see `Tokens`)
    P prefix tokens per group (class, registers)   N, K patch tokens per group   C channels   h attention heads
    d channels per head
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from stvideo.core.layers import gather_tokens
from stvideo.core.trace import TokenTrace

PER_TOKEN = ("index", "size", "valid", "policy")
"""Optional fields of `Tokens` with one entry per patch token, (B, F, N)."""


@dataclass
class Tokens:
    """A rectangular set of tokens, the grid they came from, and what reductions attach to them.

    Tokens are held in F groups, the sequences within which spatial attention runs: one group per frame for
    divided and space-only attention, a single group for joint attention and for images. Everything a method needs in a
    later layer travels here, never on the module, so that a batch may be split and joined anywhere.

    Attributes:
        patches: (B, F, N, C) patch tokens.
        prefix: (B, G, P, C) prefix tokens, P may be 0. G is 1 where the groups share them, else F.
        grid: (T, H, W), the grid on which ``index`` counts.
        extent: (T, H, W) of the patches at the embedding; semantic tokens keep it while ``grid`` shrinks.
        index: (B, F, N) int64, flat position t*H*W + y*W + x of each token; -1, -2, ... for the tokens fused by the
            first, second, ... fusion. None while the full grid is there in its natural order.
        size: (B, F, N) float, how many patches each token stands for; its logarithm biases later attention. None: one.
        valid: (B, F, N) bool, False on padding, which nothing attends to. None: no padding.
        policy: (B, F, N) float in [0, 1], differentiable keep decisions of a method that masks in training what it
            gathers in inference; attention to a token with 0 is masked (DynamicViT, section 3.2). None: all kept.
        per_token: a method's own tensors (B, F, N, ...), gathered, merged and padded like the tokens.
        per_clip: a method's own tensors (B, ...), one per clip.
        fusions: how many fusions there have been.
        aligned: whether token n is at the same place in every group, so that it can attend over time as it is.
        trace: the record being kept, or None when nobody asked for it.
        joined: (B, F, P + N, C), each group's prefix and patch tokens side by side, where ``prefix`` and
            ``patches`` are views of such a tensor; else None.
    """

    patches: Tensor
    prefix: Tensor
    grid: tuple[int, int, int]
    extent: tuple[int, int, int] | None = None
    index: Tensor | None = None
    size: Tensor | None = None
    valid: Tensor | None = None
    policy: Tensor | None = None
    per_token: dict[str, Tensor] = field(default_factory=dict)
    per_clip: dict[str, Tensor] = field(default_factory=dict)
    fusions: int = 0
    aligned: bool = True
    trace: TokenTrace | None = None
    joined: Tensor | None = None

    def __post_init__(self) -> None:
        if self.extent is None:
            self.extent = self.grid

    def replace(self, **changes: Any) -> Tokens:
        """Copy with some fields changed."""
        if "patches" in changes or "prefix" in changes:
            changes.setdefault("joined", None)
        return replace(self, **changes)

    # ---- shapes ----

    @property
    def num_prefix(self) -> int:
        """P, the number of prefix tokens in front of each group."""
        return self.prefix.shape[2]

    @property
    def shares_prefix(self) -> bool:
        """Whether several groups have their prefix tokens in common."""
        return self.num_prefix > 0 and self.prefix.shape[1] != self.patches.shape[1]

    def indices(self) -> Tensor:
        """Return ``index``, spelled out while the full grid is there. (B, F, N) int64."""
        if self.index is not None:
            return self.index
        batch, groups, count, _ = self.patches.shape
        full = torch.arange(groups * count, device=self.patches.device).view(1, groups, count)
        return full.expand(batch, -1, -1)

    def sizes(self) -> Tensor:
        """Return ``size``, spelled out where every token is one patch; 0 on padding. (B, F, N) float32."""
        size = self.size
        if size is None:
            size = torch.ones(self.patches.shape[:3], device=self.patches.device)
        return size if self.valid is None else size * self.valid

    def sequences(self) -> Tensor:
        """Join each group's prefix and patch tokens, (B, F, P + N, C); a copy only where they are not joined."""
        if self.joined is not None:
            return self.joined
        batch, groups, _, dim = self.patches.shape
        if self.num_prefix == 0:
            return self.patches
        return torch.cat((self.prefix.expand(batch, groups, -1, dim), self.patches), dim=2)

    def with_sequences(self, x: Tensor) -> Tokens:
        """Replace the values by (B, F, P + N, C), of which ``prefix`` and ``patches`` become views."""
        count = self.num_prefix
        return self.replace(prefix=x[:, :, :count], patches=x[:, :, count:], joined=x)

    def attention_bias(self) -> Tensor | None:
        """Return what is added to attention logits per key, (B, F, P + N) float32: log of the size, -inf on padding.

        None where there is nothing to add. (Proportional attention: Bolya et al., arXiv 2210.09461, equation 1.)
        """
        if self.size is None and self.valid is None:
            return None
        bias = torch.zeros(self.patches.shape[:3], device=self.patches.device)
        if self.size is not None:
            bias = bias + self.size.float().clamp(min=1e-6).log()
        if self.valid is not None:
            bias = bias.masked_fill(~self.valid, -torch.inf)
        return torch.nn.functional.pad(bias, (self.num_prefix, 0))

    def mean_patches(self, x: Tensor) -> Tensor:
        """Average (B, F, N, C) values over all patch tokens, weighted by size and without padding. Returns (B, C)."""
        if self.size is None and self.valid is None:
            return x.mean(dim=(1, 2))
        weight = self.sizes().to(x.dtype)
        return torch.einsum("bfn,bfnc->bc", weight, x) / weight.sum(dim=(1, 2)).unsqueeze(1)

    # ---- choosing tokens ----

    def gather(self, kept: Tensor, *, aligned: bool = True) -> Tokens:
        """Keep the patch tokens at positions ``kept``, with everything attached to them.

        Args:
            kept: (B, F, K) int64.
            aligned: whether ``kept`` is the same in every group.
        """
        batch = self.patches.shape[0]

        def pick(x: Tensor) -> Tensor:
            place = kept.view(*kept.shape, *[1] * (x.ndim - 3)).expand(*kept.shape, *x.shape[3:])
            return x.expand(batch, *x.shape[1:]).gather(2, place)

        changes: dict[str, Any] = {"index": pick(self.indices())}
        for name in ("size", "valid", "policy"):
            value = getattr(self, name)
            if value is not None:
                changes[name] = pick(value)
        return self.replace(
            patches=gather_tokens(self.patches, kept),
            per_token={name: pick(value) for name, value in self.per_token.items()},
            aligned=self.aligned and aligned,
            **changes,
        )

    def select(self, keep: Tensor) -> Tokens:
        """Keep the patch tokens where ``keep`` (B, F, N) is True; counts may differ, shorter groups are padded."""
        if self.valid is not None:
            keep = keep & self.valid
        counts = keep.sum(dim=2, keepdim=True)
        longest = max(1, int(counts.max()))
        order = (~keep).to(torch.uint8).argsort(dim=2, stable=True)[:, :, :longest]
        chosen = self.gather(order, aligned=False)
        if bool((counts == longest).all()):
            return chosen.replace(valid=None)
        return chosen.replace(valid=torch.arange(longest, device=keep.device) < counts)

    def append(self, patches: Tensor, size: Tensor | None = None) -> Tokens:
        """Add fused tokens behind the patch tokens; what else is attached to tokens is 0 for them.

        Args:
            patches: (B, F, n, C).
            size: (B, F, n) how many patches each stands for; taken only where the tokens have sizes.
        """
        count = patches.shape[2]
        index, shape = self.indices(), (*self.patches.shape[:2], count)
        changes: dict[str, Any] = {
            "index": torch.cat((index, index.new_full(shape, -1 - self.fusions)), dim=2),
            "patches": torch.cat((self.patches, patches), dim=2),
            "fusions": self.fusions + 1,
        }
        ones = torch.ones(shape, device=patches.device)
        for name, value in (("size", ones if size is None else size), ("valid", ones), ("policy", ones)):
            own = getattr(self, name)
            if own is not None:
                changes[name] = torch.cat((own, value.to(own.dtype)), dim=2)
        padded = {name: _pad(value, count) for name, value in self.per_token.items()}
        return self.replace(per_token=padded, **changes)

    def merge(
        self, target: Tensor, representative: Tensor, *, aligned: bool = True, weight: Tensor | None = None
    ) -> Tokens:
        """Merge patch tokens into K tokens, each the mean of its members by size; sizes add up.

        Padding is to be sent to any token: it counts for nothing. Floating tensors in ``per_token`` are averaged
        alike, others are the representative's.

        Args:
            target: (B, F, N) int64 in [0, K), the new token of each token.
            representative: (B, F, K) int64, the member whose place in the clip the new token takes.
            aligned: whether both are the same in every group.
            weight: (B, F, N) float factors on the sizes in the mean, where a method wants others.
        """
        size = self.sizes().to(torch.float32)
        share = size if weight is None else size * weight
        count = representative.shape[2]
        total = _sum_into(share.unsqueeze(-1), target, count).clamp(min=1e-12)

        def average(x: Tensor) -> Tensor:
            flat = x.reshape(*x.shape[:3], -1).float()
            return (_sum_into(flat * share.unsqueeze(-1), target, count) / total).view(
                *x.shape[:2], count, *x.shape[3:]
            )

        merged = self.gather(representative, aligned=aligned)
        own = {n: average(x).to(x.dtype) for n, x in self.per_token.items() if x.is_floating_point()}
        return merged.replace(
            patches=average(self.patches).to(self.patches.dtype),
            size=_sum_into(size.unsqueeze(-1), target, count).squeeze(-1),
            per_token={**merged.per_token, **own},
        )

    def regroup(self, groups: int) -> Tokens:
        """View the patch tokens as another number of groups, in the same order; prefix tokens stay as they are."""
        batch = self.patches.shape[0]

        def view(x: Tensor) -> Tensor:
            return x.expand(batch, *x.shape[1:]).reshape(batch, groups, -1, *x.shape[3:])

        own = {name: view(value) for name in PER_TOKEN if (value := getattr(self, name)) is not None}
        own["index"] = view(self.indices())
        per_token = {name: view(value) for name, value in self.per_token.items()}
        return self.replace(patches=view(self.patches), per_token=per_token, **own)

    # ---- batches ----

    def split(self, clips: int) -> list[Tokens]:
        """Cut the batch into parts of at most ``clips`` clips, without a trace."""
        batch = self.patches.shape[0]
        if clips >= batch:
            return [self]
        return [self._clips(slice(start, start + clips)) for start in range(0, batch, clips)]

    def _clips(self, part: slice) -> Tokens:
        def cut(x: Tensor | None) -> Tensor | None:
            return x if x is None or x.shape[0] == 1 else x[part]

        return self.replace(
            patches=self.patches[part],
            prefix=self.prefix[part],
            per_token={name: value[part] for name, value in self.per_token.items()},
            per_clip={name: value[part] for name, value in self.per_clip.items()},
            **{name: cut(getattr(self, name)) for name in PER_TOKEN},
        )

    @staticmethod
    def concatenate(parts: Sequence[Tokens]) -> Tokens:
        """Join the clips of all ``parts`` to one batch, without a trace; parts with fewer tokens are padded."""
        first = parts[0]
        if len(parts) == 1:
            return first
        longest = max(part.patches.shape[2] for part in parts)
        parts = [part._padded(longest) for part in parts]
        changes: dict[str, Any] = {}
        for name in PER_TOKEN:
            changes[name] = _join([getattr(part, name) for part in parts], parts, NEUTRAL[name])
        return first.replace(
            patches=torch.cat([part.patches for part in parts]),
            prefix=torch.cat([part.prefix for part in parts]),
            per_token={name: torch.cat([part.per_token[name] for part in parts]) for name in first.per_token},
            per_clip={name: torch.cat([part.per_clip[name] for part in parts]) for name in first.per_clip},
            fusions=max(part.fusions for part in parts),
            aligned=all(part.aligned for part in parts),
            **changes,
        )

    def _padded(self, count: int) -> Tokens:
        """Pad every group to ``count`` patch tokens."""
        missing = count - self.patches.shape[2]
        if missing == 0:
            return self
        shape = self.patches.shape[:3]
        valid = (
            self.valid if self.valid is not None else torch.ones(shape, dtype=torch.bool, device=self.patches.device)
        )
        return self.replace(
            patches=_pad(self.patches, missing),
            index=_pad(self.indices(), missing),
            size=None if self.size is None else _pad(self.size, missing, 1.0),
            policy=None if self.policy is None else _pad(self.policy, missing),
            valid=_pad(valid, missing, False),
            per_token={name: _pad(value, missing) for name, value in self.per_token.items()},
            aligned=False,
        )


NEUTRAL: dict[str, Callable[[Tokens], Tensor]] = {
    "index": Tokens.indices,
    "size": lambda tokens: torch.ones(tokens.patches.shape[:3], device=tokens.patches.device),
    "valid": lambda tokens: torch.ones(tokens.patches.shape[:3], dtype=torch.bool, device=tokens.patches.device),
    "policy": lambda tokens: torch.ones(tokens.patches.shape[:3], device=tokens.patches.device),
}
"""The value of each optional field where it is None, spelled out."""


def _join(values: list[Tensor | None], parts: Sequence[Tokens], neutral: Callable[[Tokens], Tensor]) -> Tensor | None:
    """Concatenate an optional field over the batch; None where all parts lack it."""
    if all(value is None for value in values):
        return None
    rows = [neutral(part) if value is None else value for part, value in zip(parts, values, strict=True)]
    return torch.cat([row.expand(part.patches.shape[0], -1, -1) for row, part in zip(rows, parts, strict=True)])


def _pad(x: Tensor, count: int, value: float | bool = 0) -> Tensor:
    """Append ``count`` entries of ``value`` along the token axis. (B, F, N, ...) -> (B, F, N + count, ...)."""
    return torch.cat((x, x.new_full((*x.shape[:2], count, *x.shape[3:]), value)), dim=2)


def _sum_into(x: Tensor, target: Tensor, count: int) -> Tensor:
    """Sum (B, F, N, C) values of the tokens that share a target. Returns (B, F, count, C)."""
    batch, groups, _, dim = x.shape
    first = torch.arange(batch * groups, device=x.device).view(batch, groups, 1) * count
    rows = (target + first).flatten()
    out = x.new_zeros(batch * groups * count, dim).index_add(0, rows, x.reshape(-1, dim))
    return out.view(batch, groups, count, dim)
