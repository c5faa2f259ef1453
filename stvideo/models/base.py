"""The interface of backbones, for commands, reductions, weights and dense heads."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from stvideo.core.errors import StvideoError
from stvideo.core.layers import Attention
from stvideo.core.packed import pack_linears
from stvideo.core.tokens import Tokens
from stvideo.core.trace import TokenTrace
from stvideo.data.clips.preprocessing import Preprocessing
from stvideo.models.block import Block
from stvideo.reduction.base import Reducible
from stvideo.reduction.hooks import Host


class Backbone(Reducible):
    """Base of every model: clips (B, 3, T, H, W), or images (B, 3, H, W), to tokens, and tokens to logits.

    A family implements `forward_features` and, where its head reads anything but the mean of the normalised tokens,
    `pool`; it creates ``norm``, ``head_drop`` and ``head`` (`init_head`).

    Args:
        num_classes: outputs of the head; 0 for none (the pooled feature is returned).
        num_frames: frames per clip for which it is laid out.
        img_size: (height, width) in pixels for which it is laid out.
        embed_dim: channels of the pooled feature.

    Attributes:
        patch_size: side of a patch in pixels.
        tubelet_size: frames that a patch spans.
        global_pool: what the head reads; ``avg`` is the mean of the normalised patch tokens.
        reductions: `Reduction` by name, in the order in which they act; stays empty where ``takes_reductions`` is
            False.
        features_only: whether `forward` gives a feature pyramid (hierarchical models) instead of logits.
        spec: ``name`` and ``arguments`` that rebuild it with `stvideo.create_model`.
        classes: class names in the order of the outputs; empty if nobody knows them.
        preprocessing: how a clip that it was trained on was read, None if nobody knows.
        metadata: what its checkpoint says of it, as saved.
        may_lack: pattern of the weights that a file for it need not have, besides head and reductions.
        image_may_lack: the same for a file of image weights (see `prepare_image_state`).
        optimized: whether this is the copy that `optimize_for_inference` made, whose weights are not for saving.

    Raises:
        StvideoError: a count that is not positive.
    """

    takes_reductions: ClassVar[bool] = False
    published_init: ClassVar[tuple[type[nn.Module], ...]] = (nn.Linear, nn.Conv2d, nn.Conv3d)  # others as torch does
    patch_size: int
    tubelet_size: int = 1
    global_pool: str = "avg"
    features_only: bool = False
    may_lack: str = ""
    image_may_lack: str = ""
    optimized: bool = False
    norm: nn.Module
    head_drop: nn.Dropout
    head: nn.Module

    def __init__(self, *, num_classes: int, num_frames: int, img_size: tuple[int, int], embed_dim: int) -> None:
        super().__init__()
        if num_frames < 1 or num_classes < 0:
            raise StvideoError(f"num_frames {num_frames} and num_classes {num_classes} must be positive")
        self.num_classes = num_classes
        self.num_frames = num_frames
        self.img_size = img_size
        self.embed_dim = embed_dim
        self.grad_checkpointing = False
        self.reductions = nn.ModuleDict()
        self.spec: dict[str, Any] = {}
        self.classes: list[str] = []
        self.preprocessing: Preprocessing | None = None
        self.metadata: dict[str, Any] = {}

    # From clips to logits.

    def check_clip(self, clip: Tensor) -> Tensor:
        """Return ``clip`` as (B, 3, T, H, W); raises `StvideoError` if it does not fit the model."""
        if not isinstance(clip, Tensor):
            raise StvideoError(f"expected a clip as a tensor of shape (B, 3, T, H, W), got a {type(clip).__name__}")
        if clip.ndim == 4:
            clip = clip.unsqueeze(2)
        if clip.ndim != 5 or clip.shape[1] != 3 or 0 in clip.shape:
            raise StvideoError(
                f"expected a clip (B, 3, T, H, W) or an image (B, 3, H, W), got shape {tuple(clip.shape)}"
            )
        return clip

    def forward_features(self, clip: Tensor, return_trace: bool = False) -> Tokens:
        """Compute the tokens after the last block, before the final norm; with a ``trace`` if asked for."""
        raise NotImplementedError

    def pool(self, tokens: Tokens) -> Tensor:
        """Reduce the tokens to the feature that the head reads, (B, C): the mean of the normalised patch tokens."""
        return tokens.mean_patches(self.norm(tokens.patches))

    def forward_head(self, tokens: Tokens, pre_logits: bool = False) -> Tensor:
        """Pool, normalise and classify. Returns (B, num_classes), or the (B, C) feature with ``pre_logits``."""
        feature = self.head_drop(self.pool(tokens))
        return feature if pre_logits else self.head(feature)

    def forward(self, clip: Tensor, return_trace: bool = False, return_tokens: bool = False) -> Any:
        """Classify a batch of clips.

        Args:
            clip: (B, 3, T, H, W) or, for one frame, (B, 3, H, W); float, normalised.
            return_trace: also return the `TokenTrace`.
            return_tokens: also return the tokens after the last block, for losses of reductions.

        Returns:
            logits (B, num_classes); with ``return_trace`` a pair (logits, trace), with ``return_tokens`` a pair
            (logits, tokens).

        Raises:
            StvideoError: the clip's shape does not fit.
        """
        tokens = self.forward_features(clip, return_trace)
        logits = self.forward_head(tokens)
        if tokens.trace is not None:
            return logits, tokens.trace.finish()
        return (logits, tokens) if return_tokens else logits

    def run(self, module: nn.Module, *args: Any) -> Any:
        """Call a block, keeping or recomputing its activations as `set_grad_checkpointing` says."""
        if self.grad_checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(module, *args, use_reentrant=False)
        return module(*args)

    # Features and maps.

    def forward_intermediates(
        self, clip: Tensor, indices: int | Sequence[int] | None = None, *, norm: bool = False
    ) -> tuple[Tokens, list[Tensor]]:
        """Compute feature maps after some of the blocks, or stages, and the final tokens (timm's convention).

        Args:
            clip: as for `forward`.
            indices: numbers of the blocks or stages; the last n for an int, all for None.
            norm: apply the final norm to the maps of a ViT.

        Returns:
            the tokens of `forward_features`, and the maps (B, C, T, H, W) in the order of the network. Every patch has
            the feature of the token that carries it, 0 if it was dropped.

        Raises:
            StvideoError: no such block, or one inside of those that a reduction replaces.
        """
        raise StvideoError(f"{type(self).__name__} gives no intermediate features")

    def attention_maps(self, clip: Tensor, layer: int = -1) -> Tensor:
        """Compute how much attention each patch gets in one block.

        Args:
            clip: as for `forward`.
            layer: number of the block; negative ones count from the end.

        Returns:
            (B, heads, T, H, W) float32: the class token's attention after the softmax, in models without one that of
            the mean query. Every patch has the value of the token that carries it, 0 if it was dropped.

        Raises:
            StvideoError: no such block, one that a reduction replaces, or a model with attention in windows.
        """
        raise StvideoError(f"{type(self).__name__} attends inside windows: it has no attention over a whole frame")

    def token_features(self, clip: Tensor) -> tuple[Tensor, TokenTrace, Tensor]:
        """Compute features of the tokens and of the clip.

        Returns:
            (B, N, C) rows in the order of the trace's ids, after the final norm; the trace; (B, C) what the head reads.
        """
        tokens = self.forward_features(clip, return_trace=True)
        assert tokens.trace is not None
        return self.norm(tokens.patches).flatten(1, 2), tokens.trace.finish(), self.forward_head(tokens, True)

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        """List channels and stride of every stage, in timm's words; empty without stages."""
        return []

    # For commands, weights and training.

    def example_shape(self) -> tuple[int, int, int, int, int]:
        """Return the shape of one clip at the constructed size: (1, 3, T, H, W)."""
        return (1, 3, self.num_frames, *self.img_size)

    def reduction_host(self) -> Host:
        """Describe the model to reductions.

        Raises:
            StvideoError: it takes none.
        """
        raise StvideoError(
            f"{type(self).__name__} takes no token reductions: it has no class-token blocks to put them into; "
            "its reduced forms are models of their own (see stvideo.list_models())"
        )

    @torch.no_grad()
    def init_layers(self, scheme: str) -> None:
        """Initialise linear layers and convolutions: normal with std .02 (``published``) or Xavier (``scratch``)."""
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d, nn.Conv3d)):
                if scheme == "scratch":
                    nn.init.xavier_uniform_(module.weight.flatten(1))  # a view, so the weight itself is filled
                elif isinstance(module, self.published_init):
                    nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def init_head(self, num_classes: int, drop_rate: float) -> None:
        """Create the dropout and the linear layer after the pooled feature; raises `StvideoError` for a bad number."""
        self.num_classes = num_classes
        self.head_drop = nn.Dropout(drop_rate)
        width = self.embed_dim * (2 if self.global_pool == "token_avg" else 1)
        self.head = nn.Linear(width, num_classes) if num_classes else nn.Identity()

    def get_classifier(self) -> nn.Module:
        """Return the last layer (timm's convention)."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the head by a new one with random weights (timm's convention).

        Args:
            num_classes: its outputs; 0 for none.
            global_pool: must be None or the present pooling.

        Raises:
            StvideoError: another pooling, or a negative number.
        """
        if global_pool not in (None, self.global_pool) or num_classes < 0 or self.features_only:
            raise StvideoError(
                f"reset_classifier: num_classes {num_classes} and global_pool {global_pool!r} do not fit a model that "
                f"pools by {self.global_pool!r}; build another with stvideo.create_model"
            )
        like = next(self.parameters())
        self.init_head(num_classes, self.head_drop.p)
        self.to(like.device, like.dtype).train(self.training)
        if self.spec:
            self.spec["arguments"] = {**self.spec["arguments"], "num_classes": num_classes}
        self.classes = []

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block's activations in the backward pass instead of keeping them."""
        self.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """List the parameters without weight decay, besides biases and norms."""
        return set()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Group parameters by depth, in the form that timm's layer-wise learning-rate decay reads."""
        return {
            "stem": r"^(?:cls|reg)_token|^(?:pos|time|patch)_embed",
            "blocks": [(r"^blocks\.(\d+)", None), (r"^norm|^fc_norm|^pooler", (99999,))],
        }

    def prepare_dense_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Turn weights of the dense model that this one is a reduced form of into its own; its own stay as they are."""
        return state

    def prepare_image_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Turn weights of an image model into this model's; weights of a video model come back as they are."""
        return state

    def optimize_for_inference(self, *, dtype: torch.dtype | None = None, compile: bool = False) -> Backbone:
        """Make a faster copy for inference; the model itself stays as it is and can go on training.

        Exact but for rounding: in every TimeSformer block ``temporal_fc`` becomes part of the temporal attention's own
        projection (one product less of five), and LayerScale and constant factors on residual branches become part of
        the weights before them. On a CPU the weights of all large linear layers are rearranged for its matrix product
        and GELU becomes part of that product (`stvideo.core.packed`), which takes the memory of the weights once more.
        The copy has other weights than the model under the same names, so it is not for saving.

        Args:
            dtype: of the weights and of the arithmetic, e.g. ``torch.bfloat16``; clips may stay float32, and the logits
                come in this type. None leaves it.
            compile: also ``torch.compile`` it, without rearranged weights; the first call with a new clip shape takes a
                minute or so. On a CPU the default is faster for most models; on a GPU compiling is what small batches
                need, and the logits of a call are overwritten by the next one: clone what is to be kept.

        Returns:
            The copy, in evaluation mode, without gradients.
        """
        fast = copy.deepcopy(self).eval().requires_grad_(False)
        fast.optimized = True
        for module in list(fast.modules()):
            if isinstance(module, Block | Attention):
                module.fold()
        if dtype is not None:
            fast.to(dtype)
        if compile:
            # CUDA graphs: without them a small batch waits for Python instead of for the GPU.
            on_gpu = any(parameter.is_cuda for parameter in fast.parameters())
            fast.compile(dynamic=False, mode="reduce-overhead" if on_gpu else None)
        else:
            pack_linears(fast)
        return fast
