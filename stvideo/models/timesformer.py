"""TimeSformer: a ViT on clips with divided, joint or space-only attention.

Bertasius et al., "Is Space-Time Attention All You Need for Video Understanding?", ICML 2021, arXiv 2102.05095.
Parameter names are those of the released checkpoints. Differences from the paper's code: stochastic depth drops a
branch for a whole clip (theirs for single frames and positions); embeddings of another size are resized bicubically
in space and linearly in time (theirs: to the nearest).
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from stvideo.core.layers import Attention, fold_linear, fold_scale, resize_time_embedding
from stvideo.core.tokens import Tokens
from stvideo.models.block import Block
from stvideo.models.deit import SIZES
from stvideo.models.registry import ModelEntry, register_model
from stvideo.models.vit import VisionTransformer


class DividedBlock(Block):
    """Attention over time at each position, then over space in each frame, then the feed-forward part.

    The class token takes no part in temporal attention; in spatial attention it is in every frame, and its outputs
    are averaged over frames.
    """

    def __init__(self, dim: int, num_heads: int, **options: Any) -> None:
        super().__init__(dim, num_heads, **options)
        self.temporal_norm1 = nn.LayerNorm(dim, eps=self.norm1.eps)
        qkv_bias, qk_norm = options.get("qkv_bias", True), options.get("qk_norm", False)
        self.temporal_attn = Attention(dim, num_heads, qkv_bias, qk_norm, self.norm1.eps)
        self.temporal_fc: nn.Module = nn.Linear(dim, dim)

    def mix_time(self, tokens: Tokens) -> Tokens:
        """Attend over the tokens at one place in several frames, with the residual."""
        aligned = tokens.aligned and tokens.valid is None
        out = self.attend_columns(tokens.patches) if aligned else self.attend_places(tokens)
        return tokens.replace(patches=tokens.patches + self.drop_path(out))

    def attend_columns(self, patches: Tensor) -> Tensor:
        """Attend where every frame kept the same places, so that each is a column of T tokens. Keeps (B, T, N, C)."""
        batch, frames, count, dim = patches.shape
        attention = self.temporal_attn
        if batch == 1 and not torch.compiler.is_compiling():
            # One clip's columns are views of its projection, and the fused kernel answers in the same memory order.
            columns = attention.project(self.temporal_norm1(patches)).transpose(1, 2).flatten(0, 1)
            out = nn.functional.scaled_dot_product_attention(*attention.split_heads(columns))
            return self.temporal_fc(attention.proj(out.permute(2, 0, 1, 3).reshape(patches.shape)))
        # Several clips' columns are copied before the projection, which is three times as wide.
        columns = self.temporal_norm1(patches.transpose(1, 2)).flatten(0, 1)
        out = self.temporal_fc(attention(columns))
        return out.view(batch, count, frames, dim).transpose(1, 2)

    def attend_places(self, tokens: Tokens) -> Tensor:
        """Attend where each frame kept its own places: columns of the full grid in which absent tokens are masked.

        The projections, which are nearly all of the cost, run on the tokens that exist; queries, keys and values go
        to their columns and back by one copy of rows each.
        """
        patches = tokens.patches
        batch, frames, count, dim = patches.shape
        attention = self.temporal_attn
        place, places = token_places(tokens)
        device = patches.device
        frame = torch.arange(frames, device=device).view(1, frames, 1)
        slot = (place * frames + frame).flatten(1)  # of each token in its clip's (places, T) columns
        slots = places * frames
        clip = torch.arange(batch, device=device).view(batch, 1)
        token = torch.arange(frames * count, device=device).expand(batch, -1)
        # An empty slot shows any token, masked; different ones, so that the backward pass adds to different rows.
        filler = (torch.arange(slots, device=device) % (frames * count)).expand(batch, -1)
        source = filler.scatter(1, slot, token) + clip * (frames * count)
        present = torch.zeros(batch, slots, dtype=torch.bool, device=device).scatter(1, slot, True)
        mask = present.view(batch * places, 1, 1, frames)
        # A place empty in all frames has no key; its queries, which nobody reads, see the fillers.
        mask = mask | ~mask.any(dim=-1, keepdim=True)

        qkv = attention.project(self.temporal_norm1(patches)).view(-1, 3 * dim)
        columns = qkv.index_select(0, source.flatten()).view(batch * places, frames, 3 * dim)
        q, k, v = attention.split_heads(columns)
        out = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out = out.transpose(1, 2).reshape(-1, dim).index_select(0, (slot + clip * slots).flatten())
        return self.temporal_fc(attention.proj(out)).view(patches.shape)

    def fold(self) -> None:
        """Fold ``temporal_fc`` and the scales into the projection after temporal attention."""
        if isinstance(self.temporal_fc, nn.Linear):
            fold_linear(self.temporal_attn.proj, self.temporal_fc)
            fold_scale(self.temporal_attn.proj, self.drop_path.scale)
            self.temporal_fc = nn.Identity()
        super().fold()


def token_places(tokens: Tokens) -> tuple[Tensor, int]:
    """Number the place of each token in its frame, fused tokens behind the grid, padding last.

    Returns:
        (B, T, N) int64 in [0, places), and the number of places.
    """
    cells = tokens.grid[1] * tokens.grid[2]
    index = tokens.indices()
    place = torch.where(index >= 0, index % cells, cells - 1 - index)
    places = cells + tokens.fusions
    if tokens.valid is not None:
        place, places = torch.where(tokens.valid, place, places), places + 1
    return place.expand(tokens.patches.shape[:3]), places


class TimeSformer(VisionTransformer):
    """TimeSformer. Clips (B, 3, T, H, W) to logits (B, num_classes).

    Args:
        attention: ``divided`` (time, then space), ``joint`` (all tokens of the clip in one sequence) or ``space``
            (frames apart, class tokens averaged before the final norm).
        options: as for `VisionTransformer`.
    """

    attention_kinds = ("divided", "joint", "space")
    image_may_lack = r"^time_embed$|\.temporal_fc\."

    def __init__(self, *, attention: str = "divided", num_frames: int = 8, **options: Any) -> None:
        super().__init__(attention=attention, num_frames=num_frames, **options)

    def make_block(self, dim: int, num_heads: int, **options: Any) -> Block:
        block_class = DividedBlock if self.attention == "divided" else Block
        return block_class(dim, num_heads, **options)

    def embeddings(self) -> list[nn.Parameter]:
        return [*super().embeddings(), *([] if self.time_embed is None else [self.time_embed])]

    def init_weights(self, scheme: str) -> None:
        with torch.no_grad():
            self.time_embed = None
            if self.attention != "space":
                self.time_embed = nn.Parameter(torch.zeros(1, self.extent[0], self.embed_dim))
            super().init_weights(scheme)
            if scheme == "published":
                if self.time_embed is not None:
                    nn.init.zeros_(self.time_embed)
                self.zero_temporal_fc()

    @torch.no_grad()
    def zero_temporal_fc(self) -> None:
        """Zero ``temporal_fc`` in every block but the first, so that they start as plain spatial blocks."""
        for block in self.blocks[1:]:
            if isinstance(block, DividedBlock):
                for parameter in block.temporal_fc.parameters():
                    nn.init.zeros_(parameter)

    def prepare_image_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Copy spatial attention and its norm into temporal attention, and zero this model's ``temporal_fc``."""
        if "time_embed" in state or any(".temporal_attn." in name for name in state) or self.attention != "divided":
            return state
        self.zero_temporal_fc()
        pattern = re.compile(r"^(blocks\.\d+)\.(attn|norm1)\.")
        found = {name: value for name, value in state.items() if pattern.match(name)}
        return state | {pattern.sub(r"\1.temporal_\2.", name): value.clone() for name, value in found.items()}

    def embed_time(self, patches: Tensor) -> Tensor:
        if self.time_embed is None:
            return patches
        return patches + resize_time_embedding(self.time_embed, patches.shape[1]).unsqueeze(2)


# The paper's "HR" and "L" are the base size at 16 x 448 and 96 x 224: pass img_size and num_frames.
for _size, _shape in SIZES.items():
    _name = f"timesformer_{_size}_patch16_224"
    register_model(ModelEntry(_name, TimeSformer, _shape))
    register_model(ModelEntry(f"evit_{_name}", TimeSformer, _shape, "evit"))
    register_model(ModelEntry(f"stvit_{_name}", TimeSformer, _shape, "stgm"))
    register_model(ModelEntry(f"stvitr_{_name}", TimeSformer, _shape, "stvitr"))
