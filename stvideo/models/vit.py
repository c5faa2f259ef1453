"""The ViT that all families share: embedding, blocks with the hooks of reductions, pooling, head.

Dosovitskiy et al., "An Image is Worth 16x16 Words", arXiv 2010.11929. Parameter names are timm's.
An image is a clip of one frame; attention over several frames is `joint` (all tokens in one sequence) or `space`
(each frame by itself). Divided space-time attention is added in `timesformer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from stvideo.core.errors import StvideoError
from stvideo.core.layers import MLP_KINDS
from stvideo.core.rope import KINDS, Rope
from stvideo.core.tokens import Tokens
from stvideo.core.trace import TokenTrace
from stvideo.models.arguments import check_choice, take_indices
from stvideo.models.block import Block
from stvideo.models.embedding import ClipEmbedding
from stvideo.models.pooling import POOLINGS, AttentivePooler
from stvideo.reduction.base import IN_BLOCKS
from stvideo.reduction.hooks import Host

CACHED_BYTES = 24 * 2**20
"""The widest activation, in bytes, up to which clips go through a CPU together."""


class VisionTransformer(ClipEmbedding):
    """ViT on clips: (B, 3, T, H, W), or images (B, 3, H, W), to logits (B, num_classes).

    Args:
        embed_dim: channels C.
        depth: number of blocks.
        num_heads: attention heads.
        mlp_ratio: outputs of the first layer of the feed-forward part over C.
        mlp: kind of the feed-forward part: ``gelu``, ``gelu_tanh`` or ``swiglu``.
        qkv_bias: bias in the query, key and value projection; ``qv`` for queries and values only.
        qk_norm: LayerNorm on queries and keys.
        rope: rotary positions of the patch tokens, ``axial`` (DINOv3) or ``vjepa2``; None for none. See `Rope`.
        layer_scale: initial LayerScale on both branches, None for none.
        residual_scale: factor on both branches of every block.
        global_pool: what the head reads: ``token`` (the class token), ``avg`` (the mean of the patch tokens),
            ``fc_norm`` (the same with the final norm after the mean, VideoMAE), ``token_avg`` (both side by side,
            DINOv2) or ``attentive`` (see `AttentivePooler`, V-JEPA 2).
        drop_rate: dropout before the head.
        drop_path_rate: stochastic depth of the last block, rising linearly over depth.
        norm_eps: epsilon of the LayerNorms.
        weight_init: ``published`` (every weight normal with std .02) or ``scratch`` (Xavier weights and embeddings of
            std .5, which lets positions be seen beside the patch content when training on small data).
        embedding: as for `ClipEmbedding`: sizes, prefix tokens, positions.

    Raises:
        StvideoError: an argument that does not fit.
    """

    takes_reductions = True

    def __init__(
        self,
        *,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        mlp: str = "gelu",
        qkv_bias: bool | str = True,
        qk_norm: bool = False,
        rope: str | None = None,
        layer_scale: float | None = None,
        residual_scale: float = 1.0,
        global_pool: str = "token",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        norm_eps: float = 1e-6,
        weight_init: str = "published",
        **embedding: Any,
    ) -> None:
        super().__init__(embed_dim=embed_dim, **embedding)
        check_choice("global_pool", global_pool, POOLINGS)
        check_choice("mlp", mlp, MLP_KINDS)
        check_choice("qkv_bias", qkv_bias, (True, False, "qv"))
        check_choice("weight_init", weight_init, ("published", "scratch"))
        if global_pool.startswith("token") and self.cls_token is None:
            raise StvideoError(f"global_pool {global_pool!r} needs class_token=True; use global_pool 'avg'")
        if num_heads < 1 or embed_dim % num_heads:
            raise StvideoError(f"embed_dim {embed_dim} is not divisible by num_heads {num_heads}")
        if depth < 1:
            raise StvideoError(f"depth {depth} must be positive")
        self.num_heads = num_heads
        self.global_pool = global_pool
        self.norm_eps = norm_eps
        turn = None if rope is None else Rope(check_choice("rope", rope, KINDS), embed_dim // num_heads, self.grid)
        rates = [drop_path_rate * i / max(depth - 1, 1) for i in range(depth)]
        self.blocks = nn.ModuleList(
            self.make_block(
                embed_dim,
                num_heads,
                mlp_ratio=mlp_ratio,
                mlp=mlp,
                qkv_bias=qkv_bias,
                qk_norm=qk_norm,
                rope=turn,
                layer_scale=layer_scale,
                residual_scale=residual_scale,
                drop_path_rate=rate,
                norm_eps=norm_eps,
            )
            for rate in rates
        )
        after_mean = global_pool == "fc_norm"
        self.norm: nn.Module = nn.Identity() if after_mean else nn.LayerNorm(embed_dim, eps=norm_eps)
        self.fc_norm: nn.Module = nn.LayerNorm(embed_dim, eps=norm_eps) if after_mean else nn.Identity()
        self.pooler = AttentivePooler(embed_dim, num_heads, norm_eps) if global_pool == "attentive" else None
        self.init_head(self.num_classes, drop_rate)
        self.init_weights(weight_init)

    def make_block(self, dim: int, num_heads: int, **options: Any) -> Block:
        """Create one block of this model."""
        return Block(dim, num_heads, **options)

    def embeddings(self) -> list[nn.Parameter]:
        return [*super().embeddings(), *([] if self.pooler is None else [self.pooler.query_tokens])]

    @torch.no_grad()
    def init_weights(self, scheme: str) -> None:
        """Initialise every parameter; see ``weight_init`` of the class."""
        self.init_layers(scheme)
        for embedding in self.embeddings():
            nn.init.trunc_normal_(embedding, std=0.5 if scheme == "scratch" else 0.02)

    def reduction_host(self) -> Host:
        """Describe the model to reductions."""
        return Host(
            embed_dim=self.embed_dim,
            depth=len(self.blocks),
            num_heads=self.num_heads,
            attention=self.attention,
            num_frames=self.extent[0],
            grid=self.grid,
            num_prefix=self.num_prefix,
            norm_eps=self.norm_eps,
            class_token=self.cls_token is not None,
            num_classes=self.num_classes,
        )

    def forward_features(self, clip: Tensor, return_trace: bool = False) -> Tokens:
        """Return the tokens after the last block, before the final norm."""
        clip = self.check_clip(clip)
        first, *later = self.stages()
        if return_trace:
            tokens = self.run_blocks(self.enter(clip, return_trace), range(len(self.blocks)))
        else:
            count = self.clips_at_once(clip, clip[0, 0].numel() // (self.patch_size**2 * self.tubelet_size))
            # One slice is not cut: splitting would fix the batch of an export.
            slices = [clip] if count == clip.shape[0] else clip.split(count)
            tokens = Tokens.concatenate([self.run_blocks(self.enter(part), first) for part in slices])
            for stage in later:  # with fewer tokens, more clips fit into one pass
                count = self.clips_at_once(tokens.patches, tokens.patches.shape[1] * tokens.patches.shape[2])
                tokens = Tokens.concatenate([self.run_blocks(part, stage) for part in tokens.split(count)])
        return self.finish(tokens)

    def finish(self, tokens: Tokens) -> Tokens:
        """Let the reductions change what the head reads."""
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
        """Choose how many clips of ``x`` (B, ...) with so many patch tokens each go through the blocks together.

        On a CPU, in inference, a large batch is slower than the same clips in turn: its activations fit neither the
        cache nor the memory that the allocator keeps at hand, so that every layer waits for fresh pages. Elsewhere,
        under gradients and while compiling or exporting it is the whole batch.
        """
        batch, first = x.shape[0], self.blocks[0]
        assert isinstance(first, Block)
        whole = self.training or torch.is_grad_enabled() or torch.compiler.is_compiling()
        if whole or x.device.type != "cpu":
            return batch
        most = max(1, CACHED_BYTES // (tokens * first.mlp.fc1.out_features * x.element_size()))
        return -(-batch // -(-batch // most))

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
        if self.pooler is not None:
            return self.pooler(tokens.replace(patches=self.norm(tokens.patches)))
        if not self.global_pool.startswith("token"):
            return self.fc_norm(super().pool(tokens))
        feature = self.norm(tokens.prefix[:, :, 0].mean(dim=1))  # only space attention has more than one
        return feature if self.global_pool == "token" else torch.cat((feature, super().pool(tokens)), dim=1)

    def forward_map(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        """Compute logits and a feature of every patch, for dense tasks.

        Args:
            clip: as for `forward`.

        Returns:
            logits (B, num_classes), and the normalised patch tokens on their grid, (B, C, T/t, H/p, W/p).

        Raises:
            StvideoError: the model's reduction has left fewer tokens than patches and does not bring them back.
        """
        tokens = self.forward_features(clip)
        if tokens.index is not None or tokens.grid != tokens.extent:
            raise StvideoError(
                f"{', '.join(self.reductions)}: the patch tokens are gone at the output; use the 'stvitr' reduction, "
                "which recovers them, or a dense model"
            )
        frames, rows, _ = tokens.grid
        maps = rearrange(self.norm(tokens.patches).flatten(1, 2), "b (t h w) c -> b c t h w", t=frames, h=rows)
        return self.forward_head(tokens), maps

    def forward_intermediates(
        self, clip: Tensor, indices: int | Sequence[int] | None = None, *, norm: bool = False
    ) -> tuple[Tokens, list[Tensor]]:
        replaced = self.replaced_blocks()
        ends = [layer for layer in range(len(self.blocks)) if not replaced.issuperset((layer, layer + 1))]
        tokens, maps, start = self.enter(self.check_clip(clip), return_trace=True), [], 0
        for layer in take_indices(indices, len(self.blocks), ends):
            tokens, start = self.run_blocks(tokens, range(start, layer + 1)), layer + 1
            maps.append(spread(tokens, self.norm(tokens.patches) if norm else tokens.patches))
        return self.finish(self.run_blocks(tokens, range(start, len(self.blocks)))), maps

    def attention_maps(self, clip: Tensor, layer: int = -1) -> Tensor:
        own = [n for n in range(len(self.blocks)) if n not in self.replaced_blocks()]
        (layer,) = take_indices([layer], len(self.blocks), own)
        tokens = self.run_blocks(self.enter(self.check_clip(clip), return_trace=True), range(layer))
        for reduction in self.active_reductions():
            if "before" in reduction.hooks and layer in reduction.layers:
                tokens = reduction("before", layer, tokens)
        block = self.blocks[layer]
        assert isinstance(block, Block)
        rows = block.attention_rows(block.mix_time(tokens), self.cls_token is not None)
        return spread(tokens, rows.transpose(2, 3))

    def replaced_blocks(self) -> set[int]:
        """List the blocks that reductions take the place of."""
        return {layer for r in self.active_reductions() if "replace" in r.hooks for layer in r.layers}


def spread(tokens: Tokens, x: Tensor) -> Tensor:
    """Give every patch the value of the token that carries it, 0 if none does. (B, F, N, C) -> (B, C, T, H, W)."""
    assert tokens.trace is not None and tokens.trace.current is not None
    carrier, rows = tokens.trace.current.flatten(1), x.flatten(1, 2)
    place = carrier.clamp(min=0).unsqueeze(-1).expand(-1, -1, rows.shape[-1])
    values = rows.gather(1, place) * (carrier >= 0).unsqueeze(-1)
    return values.transpose(1, 2).unflatten(2, tokens.trace.current.shape[1:])
