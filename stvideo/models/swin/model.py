"""Swin and Video Swin, and the skeleton of their relatives: a stem, stages of layers, a head or a pyramid.

Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", ICCV 2021, arXiv 2103.14030;
"Video Swin Transformer", CVPR 2022, arXiv 2106.13230. Parameter names are the official ones.

A model is its *plan*: for each stage a list of layer kinds. The sparse relatives differ from the dense model in the
plan, the stem and the layers between stages, and in nothing else.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from stvideo.core.errors import StvideoError
from stvideo.core.tokens import Tokens
from stvideo.core.trace import TokenTrace
from stvideo.models.arguments import check_choice, check_img_size, take_indices
from stvideo.models.base import Backbone
from stvideo.models.registry import ModelEntry, register_model
from stvideo.models.swin.layers import PatchMerging, PatchStem, Size3, SwinBlock, WindowAttention, size3
from stvideo.models.swin.semantic import GenerateBlock, RecoverBlock, RefineBlock

TRACED_STAGE = 2
"""The stage (from 0) in which tokens are reduced, and whose grid a trace counts on."""


class SwinStage(nn.Module):
    """One stage: its layers, then the way to the next stage.

    Args:
        blocks: the layers.
        downsample: leads to the next stage; None in the last one.
        first_layer: number of its first layer in the whole network.
    """

    def __init__(self, blocks: Sequence[nn.Module], downsample: nn.Module | None, first_layer: int) -> None:
        super().__init__()
        self.first_layer = first_layer
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor, trace: TokenTrace | None = None, run: Callable[..., Any] | None = None) -> Tensor:
        """Compute the tokens after its last layer, before ``downsample``. (B, T, H, W, C) -> (B, T, h, w, C).

        Patches are kept beside the semantic tokens that stand for them until a recovery reads them. ``run`` calls a
        layer (see `Backbone.run`).
        """
        run = run or (lambda block, *args: block(*args))
        patches = tokens = x
        entered = TokenTrace() if trace is None else trace.snapshot()
        for layer, block in enumerate(self.blocks, self.first_layer):
            if isinstance(block, GenerateBlock):
                tokens = run(block, patches, trace, layer)
            elif isinstance(block, RefineBlock):
                if trace is not None:  # it reads the patches afresh
                    trace.restore(entered)
                tokens = run(block, tokens, patches, trace, layer)
            elif isinstance(block, RecoverBlock):
                patches = tokens = run(block, patches, tokens)
                if trace is not None:  # every patch is again the token that it was before
                    trace.restore(entered)
                    trace.repeat(layer, "recovery")
            else:
                tokens = run(block, tokens)
                patches = tokens if isinstance(block, SwinBlock) else patches
        return tokens


class SwinTransformer(Backbone):
    """Swin on images (B, 3, H, W) or clips (B, 3, T, H, W) to logits (B, num_classes).

    With windows of one frame (Swin) frames are seen one by one and their features averaged, with longer ones (Video
    Swin) together. Any size is taken: pixels are padded to whole patches and maps to whole windows. Where a window
    covers the map it shrinks to it and is not shifted.

    Args:
        img_size: height and width in pixels for which it is meant; an int for a square.
        num_frames: frames per clip for which it is meant.
        num_classes: outputs of the head; 0 for none (the pooled feature is returned).
        embed_dim: channels C of the first stage; each stage has twice those of the one before.
        depths: layers of each stage.
        num_heads: attention heads of each stage.
        window_size: patches along a window's side.
        window_frames: tokens along a window's time axis.
        patch_frames: frames that a patch spans.
        flat_bias: how windows that are cut read their position bias; see `WindowAttention`.
        mlp_ratio: hidden width of the feed-forward parts over C.
        qkv_bias: bias of query, key and value projections.
        drop_rate: dropout before the head.
        drop_path_rate: stochastic depth of the last layer, rising linearly over depth.
        weight_init: ``published`` (linear layers normal with std .02) or ``scratch`` (Xavier weights).
        features_only: return a feature pyramid instead of logits, see `forward`.

    Raises:
        StvideoError: an argument that does not fit.
    """

    patch_size = 4
    published_init = (nn.Linear,)
    min_stages = 1

    def __init__(
        self,
        *,
        img_size: int | Sequence[int] = 224,
        num_frames: int = 1,
        num_classes: int = 1000,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int = 7,
        window_frames: int = 1,
        patch_frames: int = 1,
        flat_bias: bool = False,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        weight_init: str = "published",
        features_only: bool = False,
    ) -> None:
        check_choice("weight_init", weight_init, ("published", "scratch"))
        if window_frames < 1 or patch_frames < 1:
            raise StvideoError(f"window_frames {window_frames} and patch_frames {patch_frames} must be positive")
        check_shape(embed_dim, depths, num_heads, window_size, self.min_stages)
        dims = tuple(embed_dim * 2**i for i in range(len(depths)))
        size = check_img_size(img_size)
        super().__init__(num_classes=num_classes, num_frames=num_frames, img_size=size, embed_dim=dims[-1])
        self.tubelet_size = patch_frames
        self.dims = dims
        self.window: Size3 = (window_frames, window_size, window_size)
        self.flat_bias = flat_bias
        self.features_only = features_only
        self.block_options = dict(mlp_ratio=mlp_ratio, qkv_bias=qkv_bias)

        self.patch_embed = self.make_stem(embed_dim)
        self.layers = nn.ModuleList()
        total, first = sum(depths), 0
        for stage, (depth, heads) in enumerate(zip(depths, num_heads, strict=True)):
            plan = self.plan(stage, depth)
            rates = [drop_path_rate * (first + i) / max(total - 1, 1) for i in range(depth)]
            blocks = [
                self.make_block(kind, dims[stage], heads, drop_path_rate=rate, **self.block_options)
                for kind, rate in zip(plan, rates, strict=True)
            ]
            downsample = self.make_downsample(stage) if stage + 1 < len(depths) else None
            self.layers.append(SwinStage(blocks, downsample, first))
            first += depth
        if features_only:
            self.may_lack = r"^norm\d\."  # files of the classifier have none of them
            self.head = nn.Identity()
            for stage, dim in enumerate(dims):
                self.add_module(f"norm{stage}", nn.LayerNorm(dim))
        else:
            self.norm = nn.LayerNorm(self.embed_dim)
            self.init_head(num_classes, drop_rate)
        self.init_weights(weight_init)

    # Parts that relatives override.

    def make_stem(self, dim: int) -> nn.Module:
        """Create the stem: pixels (B, 3, T, H, W) to tokens (B, T', H/4, W/4, C)."""
        return PatchStem(self.patch_size, self.tubelet_size, dim)

    def plan(self, stage: int, depth: int) -> list[str]:
        """List the kinds of the layers of a stage, for `make_block`."""
        return ["shifted" if i % 2 else "swin" for i in range(depth)]

    def make_block(self, kind: str, dim: int, heads: int, **options: Any) -> nn.Module:
        """Create one layer."""
        return SwinBlock(dim, heads, window=self.window, shifted=kind == "shifted", flat_bias=self.flat_bias, **options)

    def make_downsample(self, stage: int) -> nn.Module:
        """Create the way from a stage to the next."""
        return PatchMerging(self.dims[stage])

    @torch.no_grad()
    def init_weights(self, scheme: str) -> None:
        """Initialise every parameter; see ``weight_init`` of the class."""
        self.init_layers(scheme)
        for module in self.modules():
            if isinstance(module, WindowAttention):
                nn.init.trunc_normal_(module.relative_position_bias_table, std=0.02)
            elif isinstance(module, GenerateBlock):
                module.centers.init_weights()

    # For commands and training.

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        strides = [self.patch_size * 2**i for i in range(len(self.dims))]
        return [
            dict(num_chs=dim, reduction=stride, module=f"layers.{i}")
            for i, (dim, stride) in enumerate(zip(self.dims, strides, strict=True))
        ]

    def no_weight_decay(self) -> set[str]:
        return {name for name, _ in self.named_parameters() if name.endswith("relative_position_bias_table")}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        blocks = [(r"^layers\.(\d+)\.downsample", (99998,)), (r"^layers\.(\d+)\.blocks\.(\d+)", None)]
        return {
            "stem": r"^patch_embed",
            "blocks": [*([(r"^layers\.(\d+)", None)] if coarse else blocks), (r"^norm", (99999,))],
        }

    # From clips to features.

    def stage_outputs(self, clip: Tensor, return_trace: bool = False) -> tuple[list[Tensor], TokenTrace | None]:
        """Compute the tokens (B, T, h, w, C) at the end of every stage, and the trace if asked for."""
        trace = None
        x = self.patch_embed(self.check_clip(clip).to(next(self.parameters()).dtype))
        outputs = []
        for index, stage in enumerate(self.layers):
            if return_trace and index == min(TRACED_STAGE, len(self.layers) - 1):
                trace = TokenTrace.start(x.shape[0], size3(x.shape[1:4]), x.device)
            x = stage(x, trace if index == TRACED_STAGE else None, self.run)
            outputs.append(x)
            if isinstance(stage.downsample, nn.Module):
                x = stage.downsample(x)
        return outputs, trace

    def forward_intermediates(
        self, clip: Tensor, indices: int | Sequence[int] | None = None, *, norm: bool = False
    ) -> tuple[Tokens, list[Tensor]]:
        """Compute maps as every backbone does: of stages, on each stage's own grid, without a norm."""
        outputs, _ = self.stage_outputs(clip)
        stages = take_indices(indices, len(outputs), range(len(outputs)))
        return grid_tokens(outputs[-1]), [outputs[stage].movedim(-1, 1) for stage in stages]

    def forward_features(self, clip: Tensor, return_trace: bool = False) -> Tokens:
        """Compute the tokens of the last stage, one group per frame, before the final norm."""
        outputs, trace = self.stage_outputs(clip, return_trace)
        return grid_tokens(outputs[-1], trace)

    def token_features(self, clip: Tensor) -> tuple[Tensor, TokenTrace, Tensor]:
        """Compute features as every backbone does, with rows of the stage that the trace follows, before any norm."""
        outputs, trace = self.stage_outputs(clip, return_trace=True)
        assert trace is not None
        rows = outputs[min(TRACED_STAGE, len(outputs) - 1)].flatten(1, 3)
        return rows, trace.finish(), self.forward_head(grid_tokens(outputs[-1]), pre_logits=True)

    def pyramid(self, outputs: Sequence[Tensor], image: bool) -> OrderedDict[str, Tensor]:
        """Normalise stage outputs: maps (B, C, T, h, w), or (B, C, h, w) of an ``image``, by stage number."""
        maps = OrderedDict()
        for index, x in enumerate(outputs):
            x = self.get_submodule(f"norm{index}")(x).movedim(-1, 1)
            maps[str(index)] = x.squeeze(2) if image else x
        return maps

    def forward(self, clip: Tensor, return_trace: bool = False, return_tokens: bool = False) -> Any:
        """Classify a batch of clips, or with ``features_only`` describe it by a feature pyramid.

        Args:
            clip: (B, 3, T, H, W) or, for one frame, (B, 3, H, W); float, normalised.
            return_trace: also return the `TokenTrace`, on the grid of the third stage.
            return_tokens: also return the tokens after the last stage.

        Returns:
            logits (B, num_classes), with ``return_trace`` a pair (logits, trace). With ``features_only`` an ordered
            mapping "0" to "3" of maps at strides 4, 8, 16, 32 (rounded up): (B, C, h, w) for images,
            (B, C, T, h, w) for clips.

        Raises:
            StvideoError: the clip's shape does not fit.
        """
        if not self.features_only:
            return super().forward(clip, return_trace, return_tokens)
        outputs, trace = self.stage_outputs(clip, return_trace)
        maps = self.pyramid(outputs, clip.ndim == 4)
        return maps if trace is None else (maps, trace.finish())


def check_shape(
    embed_dim: int, depths: Sequence[int], num_heads: Sequence[int], window_size: int, min_stages: int
) -> None:
    """Raise `StvideoError` unless the stages fit together."""
    if not depths or len(depths) != len(num_heads):
        raise StvideoError(f"depths {list(depths)} and num_heads {list(num_heads)} must have one number per stage")
    if len(depths) < min_stages:
        raise StvideoError(f"depths {list(depths)}: semantic tokens begin in stage {min_stages}, so there must be one")
    if min(depths) < 1 or window_size < 1:
        raise StvideoError(f"depths {list(depths)} and window_size {window_size} must be positive")
    for index, heads in enumerate(num_heads):
        if heads < 1 or embed_dim * 2**index % heads:
            raise StvideoError(f"stage {index}: {embed_dim * 2**index} channels are not divisible by {heads} heads")


def grid_tokens(x: Tensor, trace: TokenTrace | None = None) -> Tokens:
    """Pack a token grid (B, T, h, w, C) as `Tokens`, one group per frame and no prefix."""
    prefix = x.new_zeros(*x.shape[:2], 0, x.shape[-1])
    return Tokens(patches=x.flatten(2, 3), prefix=prefix, grid=size3(x.shape[1:4]), trace=trace)


SIZES: dict[str, Mapping[str, Any]] = {
    "tiny": dict(embed_dim=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24)),
    "small": dict(embed_dim=96, depths=(2, 2, 18, 2), num_heads=(3, 6, 12, 24)),
    "base": dict(embed_dim=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32)),
}
VIDEO = dict(window_frames=8, patch_frames=2, flat_bias=True, num_frames=32)

for _size, _shape in SIZES.items():
    register_model(ModelEntry(f"swin_{_size}_patch4_window7_224", SwinTransformer, _shape))
    for _name in (f"video_swin_{_size}_patch244_window877_224", f"video_swin_{_size}"):  # the second is for short
        register_model(ModelEntry(_name, SwinTransformer, {**_shape, **VIDEO}))
