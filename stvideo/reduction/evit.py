"""EViT: keep the tokens that the class token attends to, fuse the rest into one.

Liang et al., "Expediting Vision Transformers via Token Reorganizations", ICLR 2022, arXiv 2202.07800.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from stvideo.core.tokens import Tokens
from stvideo.reduction.base import register_reduction
from stvideo.reduction.hooks import AttentionInfo, Budget, Host
from stvideo.reduction.keep_or_drop import KeepOrDrop


@register_reduction("evit")
class ClassAttentionReduction(KeepOrDrop):
    """Class-attention token reorganization (EViT, sections 3.1 and 3.2).

    The score is the attention of the class token, averaged over heads. In a model without one (ours; the paper has
    none) it is the mean attention that a token receives from all others, which needs the full attention map.

    Args:
        host: the model.
        options: as for `KeepOrDrop`; ``fuse`` is True by default.
    """

    fuses = True
    budgets = {  # noqa: RUF012
        "keep_rate": Budget("share", dense=1.0, is_default=True),
        "tokens": Budget("count", is_default=True),
    }

    def __init__(self, host: Host, **options: Any) -> None:
        super().__init__(host, **options)
        self.needs = frozenset({"class_attention" if host.class_token else "received_attention"})

    def score(self, layer: int, tokens: Tokens, info: AttentionInfo) -> Tensor:
        score = info.received_attention if info.class_attention is None else info.class_attention
        assert score is not None
        return score
