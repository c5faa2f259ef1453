"""STViT and STViT-R on Swin: semantic tokens take the place of patches from the third stage on.

Chang et al., "Making Vision Transformers Efficient from A Token Sparsification View", CVPR 2023, arXiv 2303.08685,
sections 3.3, 3.4 and appendix.

STViT: stage 3 has ordinary Swin layers, the STGM (two layers) and semantic layers that alternate attention inside one
window's tokens and over all of them. Between stages 3 and 4 the semantic tokens get twice the channels and are not
merged; stage 4 attends over all of them. Our choices where the paper leaves it open: no learned global centres (they
matter little on Swin), semantic layers without position bias, adaptive bins for every map size.

On video (the paper's video experiment) every frame of the token grid keeps its own semantic tokens: the ordinary patch
embedding stays, centres read the patches of their own frame, and semantic layers attend through time.

STViT-R: stage 3 is a row of dumbbell units: a Swin layer on all patches, the STGM, semantic layers, and a recovery
layer in which the patches, which waited unchanged, read the semantic tokens. Structure and parameter names are those
of the released models: max-pooled centres, no residual on the STGM's first attention, no global centres, shifted
windows in the other stages only.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from stvideo.core.errors import StvideoError
from stvideo.models.arguments import check_choice
from stvideo.models.registry import ModelEntry, register_model
from stvideo.models.swin.dense_start import merging_to_projection, split_projection
from stvideo.models.swin.layers import ConvStem, PatchMerging
from stvideo.models.swin.model import SIZES, TRACED_STAGE, VIDEO, SwinTransformer
from stvideo.models.swin.semantic import (
    GenerateBlock,
    GlobalBlock,
    LocalBlock,
    RecoverBlock,
    RefineBlock,
    SemanticBlock,
)

# Depth of stage 3: Swin layers before the STGM, as published and with "Move STGM".
BASE_LAYERS = {6: (2, 1), 18: (10, 8)}
STGM_LAYERS = 2
UNIT = ("swin", "generate", "refine", "local", "global", "recover")
KINDS: dict[str, type[SemanticBlock]] = {
    "generate": GenerateBlock,
    "refine": RefineBlock,
    "local": LocalBlock,
    "global": GlobalBlock,
    "recover": RecoverBlock,
}


class SparseSwin(SwinTransformer):
    """Swin with layers on semantic tokens; see `SwinTransformer` for the other arguments.

    Args:
        tokens_per_window: semantic tokens of a window, a square number: 4, 9 or 16 in the paper.
        pooling: initial centres by ``gate`` (the paper's learned gate and offset) or ``max`` (adaptive max pooling).
        layer_scale: initial scale of both branches in the layers that touch semantic tokens.
        shortcut: residual on the centres in the first layer of the STGM.

    Raises:
        StvideoError: an argument that does not fit.
    """

    min_stages = TRACED_STAGE + 1

    def __init__(
        self,
        *,
        tokens_per_window: int = 9,
        pooling: str = "gate",
        layer_scale: float = 1e-5,
        shortcut: bool = True,
        window_size: int = 7,
        patch_frames: int = 1,
        **options: Any,
    ) -> None:
        check_choice("pooling", pooling, ("gate", "max"))
        self.side = check_tokens_per_window(tokens_per_window, window_size)
        self.pooling = pooling
        self.semantic_options: dict[str, Any] = dict(
            side=self.side, window=window_size, layer_scale=layer_scale, shortcut=shortcut, over_time=patch_frames > 1
        )
        super().__init__(window_size=window_size, patch_frames=patch_frames, **options)

    def make_stem(self, dim: int) -> nn.Module:
        """Create two convolutions of stride 2; on video the ordinary patch embedding."""
        return ConvStem(dim) if self.tubelet_size == 1 else super().make_stem(dim)

    def make_block(self, kind: str, dim: int, heads: int, **options: Any) -> nn.Module:
        if kind not in KINDS:
            return super().make_block(kind, dim, heads, **options)
        own: dict[str, Any] = dict(pooling=self.pooling) if kind == "generate" else {}
        return KINDS[kind](dim, heads, **self.semantic_options, **own, **options)


class SemanticSwin(SparseSwin):
    """STViT-Swin: semantic tokens from the middle of stage 3 on; see `SparseSwin` for the other arguments.

    Args:
        move_stgm: the STGM comes earlier ("Move STGM" in the paper): cheaper, at the same depth.
        base_layers: Swin layers of stage 3 before the STGM; None for the published number.

    Raises:
        StvideoError: an argument that does not fit.
    """

    may_lack = r"\.centers\.|\.layer_scale_\d$"  # dense files have none of them

    def __init__(self, *, move_stgm: bool = False, base_layers: int | None = None, **options: Any) -> None:
        self.move_stgm = move_stgm
        self.base_layers = base_layers
        if options.get("features_only"):
            raise StvideoError(
                "features_only: semantic tokens leave no full map in the last two stages; "
                "use a model with recovery, e.g. stvitr_swin_small_patch4_window7_224"
            )
        super().__init__(**options)

    def plan(self, stage: int, depth: int) -> list[str]:
        """Put the STGM into the third stage and semantic layers, in later stages all of them global, after it."""
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
        semantic = ["global" if i % 2 else "local" for i in range(depth - STGM_LAYERS - base)]
        return [*super().plan(stage, base), "generate", "refine", *semantic]

    def make_downsample(self, stage: int) -> nn.Module:
        """Create the way to the next stage; semantic tokens keep their number."""
        return PatchMerging(self.dims[stage], side=2 if stage < TRACED_STAGE else 1)

    def prepare_dense_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Start the layers on semantic tokens from those of a dense Swin."""
        for name, module in self.named_modules():
            if isinstance(module, SemanticBlock):
                state = split_projection(state, f"{name}.attn")
            elif isinstance(module, PatchMerging) and module.side == 1:
                state = merging_to_projection(state, name)
        return state


class RecoverySwin(SparseSwin):
    """STViT-R-Swin: the third stage works on semantic tokens and recovers the patches, unit by unit.

    It has a full-resolution map in every stage, so ``features_only=True`` gives a pyramid for detection and
    segmentation. See `SparseSwin` for the arguments, whose defaults become those of the released models.
    """

    def __init__(self, *, pooling: str = "max", shortcut: bool = False, **options: Any) -> None:
        super().__init__(pooling=pooling, shortcut=shortcut, **options)

    def plan(self, stage: int, depth: int) -> list[str]:
        """Fill the third stage with dumbbell units."""
        if stage != TRACED_STAGE:
            return super().plan(stage, depth)
        if depth % len(UNIT):
            raise StvideoError(f"depths: stage 3 has {depth} layers, but must be whole units of {len(UNIT)}")
        return list(UNIT) * (depth // len(UNIT))


def check_tokens_per_window(count: int, window: int) -> int:
    """Return the side of the square that ``count`` tokens form; raise `StvideoError` unless it fits into the window."""
    if not isinstance(count, int) or isinstance(count, bool) or count < 1 or math.isqrt(count) ** 2 != count:
        raise StvideoError(f"tokens_per_window must be a square number such as 4, 9 or 16, not {count!r}")
    if count > window * window:
        raise StvideoError(
            f"tokens_per_window {count} is larger than the window of {window}x{window} = {window * window} patches"
        )
    return math.isqrt(count)


for _size, _shape in SIZES.items():
    register_model(ModelEntry(f"stvit_swin_{_size}_patch4_window7_224", SemanticSwin, _shape))
    for _name in (f"stvit_video_swin_{_size}_patch244_window877_224", f"stvit_video_swin_{_size}"):
        register_model(ModelEntry(_name, SemanticSwin, {**_shape, **VIDEO}))
for _size in ("small", "base"):
    register_model(ModelEntry(f"stvitr_swin_{_size}_patch4_window7_224", RecoverySwin, SIZES[_size]))
