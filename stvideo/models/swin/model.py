"""Swin transformer, and the skeleton of its relatives: a stem, four stages of layers, a head or a pyramid.

Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", ICCV 2021, arXiv 2103.14030.
Parameter names are the official ones; timm's are converted on loading (`swin_keys`).

A model is its *plan*: for each stage a list of layer kinds (`LAYER_KINDS`). The sparse relatives differ from the dense
model in the plan, the stem and what stands between stages, and in nothing else.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from stvideo.core.tokens import Tokens
from stvideo.core.trace import TokenTrace
from stvideo.models.arguments import check_choice
from stvideo.models.base import Backbone
from stvideo.models.registry import ModelEntry, register_model
from stvideo.models.swin.checks import check_shape, check_size
from stvideo.models.swin.keys import convert_swin_state
from stvideo.models.swin.layers import PatchMerging, PatchStem, Size3, SwinBlock, init_layers
from stvideo.models.swin.semantic import (
    Centers,
    GenerateBlock,
    GlobalBlock,
    LocalBlock,
    RecoverBlock,
    RefineBlock,
)

LAYER_KINDS = ("swin", "shifted", "generate", "refine", "local", "global", "recover")
TRACED_STAGE = 2
"""The stage (from 0) in which tokens are reduced, and whose grid a trace counts on."""


Runner = Callable[..., Any]


def call(block: nn.Module, *args: Any) -> Any:
    """Call a block as it is."""
    return block(*args)


class SwinStage(nn.Module):
    """One stage: layers by plan, then what leads to the next stage.

    Args:
        plan: kinds of its layers.
        blocks: the layers.
        downsample: leads to the next stage; None in the last one.
        first_layer: number of its first layer in the whole network.
    """

    def __init__(
        self, plan: Sequence[str], blocks: Sequence[nn.Module], downsample: nn.Module | None, first_layer: int
    ) -> None:
        super().__init__()
        self.plan = tuple(plan)
        self.first_layer = first_layer
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor, trace: TokenTrace | None = None, run: Runner = call) -> Tensor:
        """The tokens after its last layer, before ``downsample``. (B, T, H, W, C) -> (B, T, h, w, C).

        Patches are kept beside the semantic tokens that stand for them until a ``recover`` layer wants them.
        """
        patches = tokens = x
        entered = None if trace is None else trace.snapshot()
        for number, (kind, block) in enumerate(zip(self.plan, self.blocks, strict=True), self.first_layer):
            if kind in ("swin", "shifted"):
                patches = tokens = run(block, patches)
            elif kind == "generate":
                entered = None if trace is None else trace.snapshot()
                tokens = run(block, patches, trace, number)
            elif kind == "refine":
                if trace is not None and entered is not None:  # it reads the patches afresh
                    trace.restore(entered)
                tokens = run(block, tokens, patches, trace, number)
            elif kind == "recover":
                patches = tokens = run(block, patches, tokens)
                if trace is not None and entered is not None:  # every patch is again its token from before the STGM
                    trace.restore(entered)
                    trace.repeat(number, "recovery")
            else:
                tokens = run(block, tokens)
        return tokens


class SwinTransformer(Backbone):
    """Swin on images (B, 3, H, W) or clips (B, 3, T, H, W), frame by frame, to logits (B, num_classes).

    Frames are seen one by one and their features averaged; `video_swin` sees them together. Any size is taken: maps
    are padded to whole windows. Where a window covers the map it shrinks to it and is not shifted.

    Args:
        img_size: height and width in pixels for which it is meant; an int for a square.
        num_frames: frames per clip for which it is meant.
        num_classes: outputs of the head; 0 for none (the pooled feature is returned).
        embed_dim: channels C of the first stage; each stage has twice those of the one before.
        depths: layers of each stage.
        num_heads: attention heads of each stage.
        window_size: patches along a window's side.
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
    flat_bias = False  # see `WindowAttention`
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
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        weight_init: str = "published",
        features_only: bool = False,
    ) -> None:
        check_choice("weight_init", weight_init, ("published", "scratch"))
        size = check_size(img_size)
        check_shape(embed_dim, depths, num_heads, window_size, self.min_stages)
        dims = tuple(embed_dim * 2**i for i in range(len(depths)))
        super().__init__(num_classes=num_classes, num_frames=num_frames, img_size=size, embed_dim=dims[-1])
        self.features_only = features_only
        self.drop_rate = drop_rate
        self.drop_path_rate = drop_path_rate
        self.weight_init = weight_init
        self.depths = tuple(depths)
        self.dims = dims
        self.window_size = window_size
        self.block_options = dict(mlp_ratio=mlp_ratio, qkv_bias=qkv_bias)

        self.patch_embed = self.make_stem(embed_dim)
        self.layers = nn.ModuleList()
        total, first = sum(depths), 0
        for index, (depth, heads) in enumerate(zip(depths, num_heads, strict=True)):
            plan = self.plan(index, depth)
            blocks = [
                self.make_block(
                    kind, self.dims[index], heads, drop_path_rate=drop_path_rate * (first + i) / max(total - 1, 1)
                )
                for i, kind in enumerate(plan)
            ]
            leads_on = self.make_downsample(index) if index + 1 < len(depths) else None
            self.layers.append(SwinStage(plan, blocks, leads_on, first))
            first += depth
        if features_only:
            self.may_lack = r"^norm\d\."  # files of the classifier have none of them
            for index, dim in enumerate(self.dims):
                self.add_module(f"norm{index}", nn.LayerNorm(dim))
        else:
            self.norm = nn.LayerNorm(self.embed_dim)
            self.init_head(drop_rate)
        self.init_weights(weight_init)

    # What the relatives change.

    @property
    def window(self) -> Size3:
        """Attention window (frames, rows, columns)."""
        return (1, self.window_size, self.window_size)

    def make_stem(self, dim: int) -> nn.Module:
        """Pixels (B, 3, T, H, W) to tokens (B, T, H/4, W/4, C)."""
        return PatchStem((1, self.patch_size, self.patch_size), dim)

    def plan(self, stage: int, depth: int) -> list[str]:
        """Kinds of the layers of a stage."""
        return ["shifted" if i % 2 else "swin" for i in range(depth)]

    def make_downsample(self, stage: int) -> nn.Module:
        """What leads from a stage to the next."""
        return PatchMerging(self.dims[stage])

    def semantic_options(self) -> dict[str, Any]:
        """Options of the layers on semantic tokens, for those models that have any."""
        raise NotImplementedError

    def make_block(self, kind: str, dim: int, heads: int, *, drop_path_rate: float) -> nn.Module:
        """One layer of a ``kind`` of `LAYER_KINDS`."""
        options: dict[str, Any] = {**self.block_options, "drop_path_rate": drop_path_rate}
        if kind in ("swin", "shifted"):
            shifted = kind == "shifted"
            return SwinBlock(dim, heads, window=self.window, shifted=shifted, flat_bias=self.flat_bias, **options)
        semantic = self.semantic_options()
        options |= {key: semantic[key] for key in ("layer_scale", "over_time")}
        if kind == "generate":
            options |= {key: semantic[key] for key in ("side", "pooling", "shortcut")}
            return GenerateBlock(dim, heads, window=self.window_size, **options)
        if kind == "local":
            return LocalBlock(dim, heads, side=semantic["side"], **options)
        return {"refine": RefineBlock, "global": GlobalBlock, "recover": RecoverBlock}[kind](dim, heads, **options)

    # What others ask of a model.

    @torch.no_grad()
    def init_weights(self, scheme: str) -> None:
        """Initialise every parameter; see ``weight_init`` of the class."""
        init_layers(self, scheme)
        for module in self.modules():
            if isinstance(module, Centers):
                module.init_weights()

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        """Channels and stride of every stage, in timm's words."""
        return [
            dict(num_chs=dim, reduction=self.patch_size * 2**index, module=f"layers.{index}")
            for index, dim in enumerate(self.dims)
        ]

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that weight decay should leave alone, besides biases and norms."""
        return {name for name, _ in self.named_parameters() if name.endswith("relative_position_bias_table")}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Parameter groups by depth, in the form that timm's layer-wise learning-rate decay reads."""
        if coarse:
            return {"stem": r"^patch_embed", "blocks": [(r"^layers\.(\d+)", None), (r"^norm", (99999,))]}
        return {
            "stem": r"^patch_embed",
            "blocks": [
                (r"^layers\.(\d+)\.downsample", (99998,)),
                (r"^layers\.(\d+)\.blocks\.(\d+)", None),
                (r"^norm", (99999,)),
            ],
        }

    def convert_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights of any known file in this model's parameter names."""
        return convert_swin_state(state)

    # The way through.

    def stage_outputs(self, clip: Tensor, return_trace: bool = False) -> tuple[list[Tensor], TokenTrace | None]:
        """The tokens (B, T, h, w, C) at the end of every stage, and the trace if it is wanted."""
        trace = None
        x = self.patch_embed(self.check_clip(clip).to(next(self.parameters()).dtype))
        outputs = []
        for index, stage in enumerate(self.layers):
            if return_trace and index == min(TRACED_STAGE, len(self.layers) - 1):
                trace = TokenTrace.start(x.shape[0], tuple(x.shape[1:4]), x.device)  # type: ignore[arg-type]
            x = stage(x, trace if index == TRACED_STAGE else None, self.run)
            outputs.append(x)
            if stage.downsample is not None:
                x = stage.downsample(x)  # type: ignore[operator]
        return outputs, trace

    def forward_features(self, clip: Tensor, return_trace: bool = False) -> Tokens:
        """Compute the tokens of the last stage, one group per frame, before the final norm."""
        outputs, trace = self.stage_outputs(clip, return_trace)
        return grid_tokens(outputs[-1], trace)

    def token_features(self, clip: Tensor) -> tuple[Tensor, TokenTrace, Tensor]:
        """As of every backbone, but the rows are those of the stage that the trace follows, before any norm."""
        outputs, trace = self.stage_outputs(clip, return_trace=True)
        assert trace is not None
        rows = outputs[min(TRACED_STAGE, len(outputs) - 1)].flatten(1, 3)
        return rows, trace.finish(), self.forward_head(grid_tokens(outputs[-1]), pre_logits=True)

    def pyramid(self, outputs: Sequence[Tensor], image: bool) -> OrderedDict[str, Tensor]:
        """Normalised stage outputs as maps, channels first."""
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


def grid_tokens(x: Tensor, trace: TokenTrace | None = None) -> Tokens:
    """Pack a token grid (B, T, h, w, C) as `Tokens`, one group per frame and no prefix."""
    batch, frames, rows, columns, dim = x.shape
    prefix = x.new_zeros(batch, frames, 0, dim)
    return Tokens(patches=x.flatten(2, 3), prefix=prefix, grid=(frames, rows, columns), trace=trace)


SIZES: dict[str, Mapping[str, Any]] = {
    "tiny": dict(embed_dim=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24)),
    "small": dict(embed_dim=96, depths=(2, 2, 18, 2), num_heads=(3, 6, 12, 24)),
    "base": dict(embed_dim=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32)),
}

for _size, _shape in SIZES.items():
    register_model(ModelEntry(f"swin_{_size}_patch4_window7_224", SwinTransformer, _shape))
