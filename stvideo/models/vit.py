"""The ViT-like model that all class-token backbones share: embedding, blocks with reduction slots, head.

Dosovitskiy et al., "An Image is Worth 16x16 Words", arXiv 2010.11929. Parameter names are timm's.
An image is a clip of one frame; attention over several frames is `joint` (all tokens in one sequence) or `space`
(each frame by itself). Divided space-time attention is added in `timesformer`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from stvideo.core.errors import StvideoError
from stvideo.core.layers import PatchEmbed, resize_grid_embedding
from stvideo.core.tokens import Tokens
from stvideo.core.trace import TokenTrace
from stvideo.models.arguments import check_choice, check_img_size
from stvideo.models.base import Backbone
from stvideo.models.block import Block
from stvideo.models.optimize import clips_at_once
from stvideo.reduction.base import IN_BLOCKS
from stvideo.reduction.hooks import Host


class VisionTransformer(Backbone):
    """ViT on clips: (B, 3, T, H, W), or images (B, 3, H, W), to logits (B, num_classes).

    Any frame count and any patch-divisible size are taken from the input; embeddings are resized to it.

    Args:
        img_size: height and width for which the positional embedding is laid out; an int for a square.
        patch_size: side of a patch in pixels.
        num_frames: frames for which a time embedding is laid out.
        num_classes: outputs of the head; 0 for none (the pooled feature is returned).
        embed_dim: channels C.
        depth: number of blocks.
        num_heads: attention heads.
        mlp_ratio: hidden width of the feed-forward part over C.
        qkv_bias: bias in the query, key and value projection.
        qk_norm: LayerNorm on queries and keys.
        layer_scale: initial LayerScale on both branches, None for none.
        residual_scale: factor on both branches of every block.
        attention: ``joint`` or ``space``.
        class_token: whether there is one.
        global_pool: ``token`` (head on the class token) or ``avg`` (on the mean of the patch tokens).
        drop_rate: dropout before the head.
        drop_path_rate: stochastic depth of the last block, rising linearly over depth.
        norm_eps: epsilon of the LayerNorms.
        weight_init: ``published`` (every weight normal with std .02) or ``scratch`` (Xavier weights and embeddings of
            std .5, which lets positions be seen beside the patch content when training on small data).

    Raises:
        StvideoError: an argument that does not fit.
    """

    takes_reductions = True
    block_class: type[Block] = Block
    attention_kinds: tuple[str, ...] = ("joint", "space")

    def __init__(
        self,
        *,
        img_size: int | Sequence[int] = 224,
        patch_size: int = 16,
        num_frames: int = 1,
        num_classes: int = 1000,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_norm: bool = False,
        layer_scale: float | None = None,
        residual_scale: float = 1.0,
        attention: str = "joint",
        class_token: bool = True,
        global_pool: str = "token",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        norm_eps: float = 1e-6,
        weight_init: str = "published",
    ) -> None:
        size = check_img_size(img_size, patch_size)
        super().__init__(num_classes=num_classes, num_frames=num_frames, img_size=size, embed_dim=embed_dim)
        check_choice("attention", attention, self.attention_kinds)
        check_choice("global_pool", global_pool, ("token", "avg"))
        check_choice("weight_init", weight_init, ("published", "scratch"))
        if global_pool == "token" and not class_token:
            raise StvideoError("global_pool 'token' needs class_token=True; use global_pool 'avg'")
        if embed_dim % num_heads:
            raise StvideoError(f"embed_dim {embed_dim} is not divisible by num_heads {num_heads}")
        if depth < 1:
            raise StvideoError(f"depth {depth} must be positive")
        self.patch_size = patch_size
        self.attention = attention
        self.global_pool = global_pool
        self.norm_eps = norm_eps

        self.num_prefix = int(class_token)
        rows, columns = self.grid
        self.patch_embed = self.make_patch_embed(patch_size, embed_dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim)) if class_token else None
        self.pos_embed = nn.Parameter(torch.zeros(1, self.num_prefix + rows * columns, embed_dim))
        rates = [drop_path_rate * i / max(depth - 1, 1) for i in range(depth)]
        self.blocks = nn.ModuleList(
            self.make_block(
                embed_dim,
                num_heads,
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
                qk_norm=qk_norm,
                layer_scale=layer_scale,
                residual_scale=residual_scale,
                drop_path_rate=rate,
                norm_eps=norm_eps,
            )
            for rate in rates
        )
        self.norm = nn.LayerNorm(embed_dim, eps=norm_eps)
        self.init_head(drop_rate)
        self.init_weights(weight_init)

    def make_patch_embed(self, patch_size: int, dim: int) -> nn.Module:
        """The module that turns (R, 3, H, W) frames into (R, S, C) patch tokens."""
        return PatchEmbed(patch_size, 3, dim)

    def make_block(self, dim: int, num_heads: int, **options: Any) -> Block:
        """One block of this model."""
        return self.block_class(dim, num_heads, **options)

    @property
    def grid(self) -> tuple[int, int]:
        """Patch rows and columns at the constructed size."""
        return self.img_size[0] // self.patch_size, self.img_size[1] // self.patch_size

    def embeddings(self) -> Iterable[nn.Parameter]:
        """Learned embeddings: position, class and, in sub-classes, time."""
        return [p for p in (self.pos_embed, self.cls_token) if p is not None]

    @torch.no_grad()
    def init_weights(self, scheme: str) -> None:
        """Initialise every parameter; see ``weight_init`` of the class."""
        self.init_layers(scheme)
        for embedding in self.embeddings():
            nn.init.trunc_normal_(embedding, std=0.5 if scheme == "scratch" else 0.02)

    def reduction_host(self) -> Host:
        """What reductions may know of this model."""
        first = self.blocks[0]
        assert isinstance(first, Block)
        return Host(
            embed_dim=self.embed_dim,
            depth=len(self.blocks),
            num_heads=first.attn.num_heads,
            attention=self.attention,
            num_frames=self.num_frames,
            grid=self.grid,
            num_prefix=self.num_prefix,
            norm_eps=self.norm_eps,
            class_token=self.cls_token is not None,
            num_classes=self.num_classes,
        )

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that weight decay should leave alone, besides biases and norms."""
        return {"pos_embed", "cls_token", "time_embed"}

    def check_clip(self, clip: Tensor) -> Tensor:
        clip = super().check_clip(clip)
        check_img_size(tuple(clip.shape[3:]), self.patch_size)
        return clip

    def embed(self, clip: Tensor) -> Tokens:
        """(B, 3, T, H, W) -> tokens of every patch with their positions added."""
        batch, _, frames, height, width = clip.shape
        grid = (height // self.patch_size, width // self.patch_size)
        frames_first = rearrange(clip, "b c t h w -> (b t) c h w")
        patches = self.patch_embed(frames_first.to(self.pos_embed.dtype))
        patches = rearrange(patches, "(b t) n c -> b t n c", b=batch)
        position = resize_grid_embedding(self.pos_embed[:, self.num_prefix :], self.grid, grid)
        patches = self.embed_time(patches + position.unsqueeze(1))
        prefix = patches.new_zeros(batch, 1, 0, self.embed_dim)
        if self.cls_token is not None:
            prefix = (self.cls_token + self.pos_embed[:, : self.num_prefix]).unsqueeze(1).expand(batch, -1, -1, -1)
        if self.attention == "joint":
            patches = rearrange(patches, "b t n c -> b 1 (t n) c")
        elif self.attention == "space":
            prefix = prefix.expand(-1, frames, -1, -1)
        return Tokens(patches=patches, prefix=prefix, grid=(frames, *grid))

    def embed_time(self, patches: Tensor) -> Tensor:
        """Add what tells the frames apart; nothing here. (B, T, S, C) -> (B, T, S, C)."""
        return patches

    def forward_features(self, clip: Tensor, return_trace: bool = False) -> Tokens:
        """Return the tokens after the last block, before the final norm."""
        clip = self.check_clip(clip)
        first, *later = self.stages()
        if return_trace:
            tokens = self.run_blocks(self.enter(clip, return_trace), range(len(self.blocks)))
        else:
            patches = clip.shape[2] * clip.shape[3] * clip.shape[4] // self.patch_size**2
            count = self.clips_at_once(clip, patches)
            # One slice is not cut: splitting would fix the batch of an export.
            slices = [clip] if count == clip.shape[0] else clip.split(count)
            tokens = Tokens.concatenate([self.run_blocks(self.enter(part), first) for part in slices])
            for stage in later:  # with fewer tokens, more clips fit into one pass
                count = self.clips_at_once(tokens.patches, tokens.patches.shape[1] * tokens.patches.shape[2])
                tokens = Tokens.concatenate([self.run_blocks(part, stage) for part in tokens.split(count)])
        for reduction in self.active_reductions():
            if "finish" in reduction.hooks:
                tokens = reduction("finish", tokens)
        return tokens

    def enter(self, clip: Tensor, return_trace: bool = False) -> Tokens:
        """Embed a clip and let the reductions see its pixels."""
        tokens = self.embed(clip)
        if return_trace:
            tokens.trace = TokenTrace.start(clip.shape[0], tokens.grid, clip.device)
        for reduction in self.active_reductions():
            if "embed" in reduction.hooks:
                tokens = reduction("embed", tokens, clip)
        return tokens

    def stages(self) -> list[range]:
        """Cut the blocks into runs that each end where a reduction has acted, or at the last block."""
        acted = {
            layer + (r.span_from(layer) if "replace" in r.hooks else 1)
            for r in self.active_reductions()
            for layer in r.layers
        }
        starts = [0, *sorted(acted)]
        ends = [*starts[1:], len(self.blocks)]
        return [range(start, end) for start, end in zip(starts, ends, strict=True) if start < end]

    def clips_at_once(self, x: Tensor, tokens: int) -> int:
        """How many clips of ``x`` (B, ...) with so many patch tokens each go through the blocks together."""
        first = self.blocks[0]
        assert isinstance(first, Block)
        return x.shape[0] if self.training else clips_at_once(x, tokens * first.mlp.fc1.out_features)

    def run_blocks(self, tokens: Tokens, stage: range) -> Tokens:
        """Return the tokens after the blocks of a stage and the reductions among them."""
        layer = stage.start
        while layer < stage.stop:
            here = [r for r in self.active_reductions() if layer in r.layers and r.hooks & IN_BLOCKS]
            replacing = next((r for r in here if "replace" in r.hooks), None)
            if replacing is not None:
                blocks = self.blocks[layer : layer + replacing.span_from(layer)]
                tokens = self.run(replacing, "replace", layer, tokens, blocks)
                layer += len(blocks)
            else:
                tokens = self.run(self.blocks[layer], tokens, layer, here)
                layer += 1
        return tokens

    def pool(self, tokens: Tokens) -> Tensor:
        if self.global_pool == "token":
            return self.norm(tokens.prefix[:, :, 0].mean(dim=1))  # only space attention has more than one
        return super().pool(tokens)

    def forward_map(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and a feature of every patch of every frame: for dense tasks.

        Args:
            clip: as for `forward`.

        Returns:
            logits (B, num_classes), and the normalised patch tokens on their grid, (B, C, T, H/p, W/p).

        Raises:
            StvideoError: the model's reduction has left fewer tokens than patches and does not bring them back.
        """
        tokens = self.forward_features(clip)
        frames, height, width = clip.shape[-3] if clip.ndim == 5 else 1, clip.shape[-2], clip.shape[-1]
        grid = (frames, height // self.patch_size, width // self.patch_size)
        if tokens.index is not None or tokens.grid != grid:
            raise StvideoError(
                f"{', '.join(self.reductions)}: the patch tokens are gone at the output; use the 'stvitr' reduction, "
                "which recovers them, or a dense model"
            )
        # Frame by frame whether they stand in one group (joint attention) or in one per frame.
        per_frame = self.norm(tokens.patches).reshape(clip.shape[0], frames, -1, self.embed_dim)
        return self.forward_head(tokens), rearrange(per_frame, "b t (h w) c -> b c t h w", h=grid[1])
