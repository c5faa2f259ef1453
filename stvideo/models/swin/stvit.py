"""STViT on Swin: semantic tokens take the place of the patches in the last two stages.

Chang et al., CVPR 2023, arXiv 2303.08685, section 3.3 and appendix. The stem is convolutional. Stage 3 has ordinary
Swin layers, the STGM (two layers) and semantic layers that alternate attention inside one window's tokens and over
all of them. Between stages 3 and 4 the semantic tokens get twice the channels and are not merged; stage 4 attends
over all of them.

What we chose where the paper leaves it open: no learned global centres (they matter little on Swin), semantic layers
without position bias, adaptive bins for every map size (`swin_semantic`).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from stvideo.core.errors import StvideoError
from stvideo.models.arguments import check_choice
from stvideo.models.registry import ModelEntry, register_model
from stvideo.models.swin.checks import check_tokens_per_window
from stvideo.models.swin.keys import merging_to_projection, split_projection
from stvideo.models.swin.layers import ChannelProjection, ConvStem
from stvideo.models.swin.model import SIZES, TRACED_STAGE, SwinTransformer

# Depth of stage 3: Swin layers before the STGM, as published and with "Move STGM".
BASE_LAYERS = {6: (2, 1), 18: (10, 8)}
STGM_LAYERS = 2


class SemanticSwin(SwinTransformer):
    """Swin with semantic tokens from the middle of stage 3 on; see `SwinTransformer` for the other arguments.

    Args:
        tokens_per_window: semantic tokens of a window, a square number: 4, 9 or 16 in the paper.
        move_stgm: the STGM stands earlier ("Move STGM" in the paper): cheaper, at the same depth.
        base_layers: Swin layers of stage 3 before the STGM; None for the published number.
        pooling: initial centres by ``gate`` (the paper's learned gate and offset) or ``max`` (adaptive max pooling).
        layer_scale: initial scale of both branches in the layers on semantic tokens.

    Raises:
        StvideoError: an argument that does not fit.
    """

    min_stages = TRACED_STAGE + 1
    may_lack = r"\.centers\.|\.layer_scale_\d$"  # dense files have none of them

    def __init__(
        self,
        *,
        tokens_per_window: int = 9,
        move_stgm: bool = False,
        base_layers: int | None = None,
        pooling: str = "gate",
        layer_scale: float = 1e-5,
        **options: Any,
    ) -> None:
        check_choice("pooling", pooling, ("gate", "max"))
        self.side = check_tokens_per_window(tokens_per_window, options.get("window_size", 7))
        self.tokens_per_window = tokens_per_window
        self.move_stgm = move_stgm
        self.base_layers = base_layers
        self.pooling = pooling
        self.layer_scale = layer_scale
        if options.get("features_only"):
            raise StvideoError(
                "features_only: semantic tokens leave no full map in the last two stages; "
                "use a model with recovery, e.g. stvitr_swin_small_patch4_window7_224"
            )
        super().__init__(**options)

    def make_stem(self, dim: int) -> nn.Module:
        """Two convolutions of stride 2."""
        return ConvStem(dim)

    def plan(self, stage: int, depth: int) -> list[str]:
        """Semantic layers in the third stage and, all of them global, after it."""
        if stage < TRACED_STAGE:
            return super().plan(stage, depth)
        if stage > TRACED_STAGE:
            return ["global"] * depth
        base = self.base_layers
        if base is None:
            published = BASE_LAYERS.get(depth, (max(depth // 3, 1), max(depth // 4, 1)))
            base = published[int(self.move_stgm)]
        elif self.move_stgm:
            raise StvideoError("give either move_stgm or base_layers, not both")
        if not 0 <= base <= depth - STGM_LAYERS:
            raise StvideoError(
                f"base_layers {base}: with the {STGM_LAYERS} layers of the STGM it must fit into the {depth} of stage 3"
            )
        semantic = depth - STGM_LAYERS - base
        return [
            *super().plan(stage, base),
            "generate",
            "refine",
            *("global" if i % 2 else "local" for i in range(semantic)),
        ]

    def make_downsample(self, stage: int) -> nn.Module:
        """Semantic tokens keep their number between stages."""
        if stage >= TRACED_STAGE:
            return ChannelProjection(self.dims[stage])
        return super().make_downsample(stage)

    def semantic_options(self) -> dict[str, Any]:
        """As `SwinTransformer.make_block` wants them."""
        return dict(side=self.side, pooling=self.pooling, shortcut=True, layer_scale=self.layer_scale, over_time=False)

    def convert_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights of any known file in this model's names; a dense file starts the layers on semantic tokens too."""
        state = super().convert_state(state)
        for index, stage in enumerate(self.layers):
            for number, kind in enumerate(stage.plan):  # type: ignore[arg-type, var-annotated]
                if kind not in ("swin", "shifted"):
                    state = split_projection(state, f"layers.{index}.blocks.{number}.attn")
            if isinstance(stage.downsample, ChannelProjection):
                state = merging_to_projection(state, f"layers.{index}.downsample")
        return state


for _size, _shape in SIZES.items():
    register_model(ModelEntry(f"stvit_swin_{_size}_patch4_window7_224", SemanticSwin, _shape))
