"""STViT-R-Swin: semantic tokens with recovery, for dense tasks.

Chang et al., CVPR 2023, arXiv 2303.08685, section 3.4. Stage 3 is a row of dumbbell units: a Swin layer on all
patches, the STGM (two layers), semantic layers, and a recovery layer in which the patches, which waited unchanged,
read the semantic tokens. Structure and parameter names are those of the released models: convolutional stem, max-pooled
centres, no residual on the STGM's first attention, no global centres, shifted windows in the other stages only.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from stvideo.core.errors import StvideoError
from stvideo.models.arguments import check_choice
from stvideo.models.registry import ModelEntry, register_model
from stvideo.models.swin.checks import check_tokens_per_window
from stvideo.models.swin.layers import ConvStem
from stvideo.models.swin.model import SIZES, TRACED_STAGE, SwinTransformer

UNIT = ("swin", "generate", "refine", "local", "global", "recover")


class RecoverySwin(SwinTransformer):
    """Swin whose third stage works on semantic tokens and recovers the patches, unit by unit.

    It has a full-resolution map in every stage, so ``features_only=True`` gives a pyramid for detection and
    segmentation. See `SwinTransformer` for the other arguments.

    Args:
        tokens_per_window: semantic tokens of a window, a square number; 9 in the released models.
        pooling: initial centres by ``max`` (adaptive max pooling) or ``gate`` (the paper's learned gate and offset).
        layer_scale: initial scale of both branches in the layers that touch semantic tokens.

    Raises:
        StvideoError: an argument that does not fit.
    """

    min_stages = TRACED_STAGE + 1

    def __init__(
        self,
        *,
        tokens_per_window: int = 9,
        pooling: str = "max",
        layer_scale: float = 1e-5,
        **options: Any,
    ) -> None:
        check_choice("pooling", pooling, ("gate", "max"))
        self.side = check_tokens_per_window(tokens_per_window, options.get("window_size", 7))
        self.tokens_per_window = tokens_per_window
        self.pooling = pooling
        self.layer_scale = layer_scale
        super().__init__(**options)

    def make_stem(self, dim: int) -> nn.Module:
        """Two convolutions of stride 2."""
        return ConvStem(dim)

    def plan(self, stage: int, depth: int) -> list[str]:
        """Dumbbell units in the third stage."""
        if stage != TRACED_STAGE:
            return super().plan(stage, depth)
        if depth % len(UNIT):
            raise StvideoError(f"depths: stage 3 has {depth} layers, but must be whole units of {len(UNIT)}")
        return list(UNIT) * (depth // len(UNIT))

    def semantic_options(self) -> dict[str, Any]:
        """As `SwinTransformer.make_block` wants them."""
        return dict(side=self.side, pooling=self.pooling, shortcut=False, layer_scale=self.layer_scale, over_time=False)


for _size in ("small", "base"):
    register_model(ModelEntry(f"stvitr_swin_{_size}_patch4_window7_224", RecoverySwin, SIZES[_size]))
