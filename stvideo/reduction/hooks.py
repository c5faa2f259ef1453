"""Data that blocks and training hand to the hooks of a `Reduction`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from stvideo.core.tokens import Tokens


@dataclass(frozen=True)
class Host:
    """The model that a reduction is put into, as far as a method may know it."""

    embed_dim: int
    depth: int
    num_heads: int
    attention: str  # divided | joint | space
    num_frames: int  # rows of tokens in time at the constructed size: frames, or tubelets
    grid: tuple[int, int]  # patch rows and columns at the constructed size
    num_prefix: int  # class token and registers
    norm_eps: float
    class_token: bool = True
    num_classes: int = 0


@dataclass
class AttentionInfo:
    """By-products of a block's spatial attention, computed only for the reductions that ask for them in ``needs``."""

    class_attention: Tensor | None = None
    """(B, F, N) float32: attention of the class token to every patch token of its group, averaged over heads."""
    received_attention: Tensor | None = None
    """(B, F, N) float32: attention that every patch token receives, averaged over heads and queries. Needs the map."""
    attention_map: Tensor | None = None
    """(B, F, P + N, P + N) float32: every row of attention, averaged over heads. Costs the full map."""
    keys: Tensor | None = None
    """(B, F, h, N, d): keys of the patch tokens."""
    values: Tensor | None = None
    """(B, F, h, N, d): values of the patch tokens."""


Need = Literal["class_attention", "received_attention", "attention_map", "keys", "values"]


@dataclass
class Outcome:
    """What a training loss of a reduction may look at.

    Attributes:
        logits: (B, K) of the model.
        target: (B,) class ids or (B, K) class probabilities.
        tokens: after the last block, with all that the method attached to them on the way.
        teacher_logits: (B, K) of the teacher, where the run has one.
        teacher_tokens: the teacher's tokens after its last block, where it has them.
    """

    logits: Tensor
    target: Tensor
    tokens: Tokens
    teacher_logits: Tensor | None = None
    teacher_tokens: Tokens | None = None


@dataclass(frozen=True)
class Budget:
    """An option that says how much a method keeps, and any of whose values the same weights serve.

    Attributes:
        kind: ``share`` in (0, 1], ``count`` (a whole number) or ``grid`` ([t, h, w]).
        dense: the value at which the method is exactly the dense model; None if there is none.
        is_default: the method that a sweep over this option's bare name means on a dense model.
    """

    kind: Literal["share", "count", "grid"]
    dense: float | None = None
    is_default: bool = False
