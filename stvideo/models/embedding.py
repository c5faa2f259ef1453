"""Embed clips: patches or tubelets, prefix tokens, positions. Parameter names are timm's."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from stvideo.core.errors import StvideoError
from stvideo.core.layers import resize_grid_embedding, resize_time_embedding
from stvideo.core.tokens import Tokens
from stvideo.models.arguments import check_choice, check_img_size, nearest_multiple
from stvideo.models.base import Backbone

POSITIONS = ("learned", "space_time", "sincos", "none")


class PatchEmbed(nn.Module):
    """Cut a clip into patches of p x p pixels, or tubelets of t x p x p, and project them linearly.

    (B, 3, T, H, W) -> (B, T/t, H/p * W/p, C).
    """

    def __init__(self, patch_size: int, tubelet_size: int, dim: int) -> None:
        super().__init__()
        size = self.size = (tubelet_size, patch_size, patch_size)
        # A model of single frames keeps the two-dimensional kernel of its checkpoints.
        over_time = tubelet_size > 1
        self.proj = nn.Conv3d(3, dim, size, size) if over_time else nn.Conv2d(3, dim, size[1:], size[1:])

    def project(self, clip: Tensor) -> Tensor:
        """Embed a clip. (B, 3, T, H, W) -> (B, T/t, H/p, W/p, C)."""
        return self.proj(clip).movedim(1, -1) if self.size[0] > 1 else per_frame(self.proj, clip)

    def forward(self, clip: Tensor) -> Tensor:
        return self.project(clip).flatten(2, 3)


def per_frame(layer: Callable[[Tensor], Tensor], clip: Tensor) -> Tensor:
    """Apply a two-dimensional ``layer`` to every frame. (B, 3, T, H, W) -> (B, T, H', W', C)."""
    x = layer(clip.transpose(1, 2).flatten(0, 1))
    return x.unflatten(0, (clip.shape[0], clip.shape[2])).movedim(2, -1)


def sinusoid(count: int, dim: int) -> Tensor:
    """Compute the fixed positions of VideoMAE (arXiv 2203.12602): sine and cosine by turns. Returns (1, count, dim)."""
    rate = 10000.0 ** -(torch.arange(dim, dtype=torch.float64) // 2 * 2 / dim)
    angle = torch.arange(count, dtype=torch.float64).unsqueeze(1) * rate
    angle[:, 0::2], angle[:, 1::2] = angle[:, 0::2].sin(), angle[:, 1::2].cos()
    return angle.float().unsqueeze(0)


class ClipEmbedding(Backbone):
    """The embedding of a ViT: clips (B, 3, T, H, W) to `Tokens`.

    Any frame count and size are taken that patches divide; positions are resized to it.

    Args:
        img_size: height and width for which positions are laid out; an int for a square.
        patch_size: side of a patch in pixels.
        tubelet_size: frames that a patch spans.
        num_frames: frames for which positions in time are laid out.
        num_classes: outputs of the head; 0 for none (the pooled feature is returned).
        embed_dim: channels C.
        attention: ``joint`` (all tokens of a clip in one sequence) or ``space`` (one per frame).
        class_token: whether there is one.
        num_registers: further prefix tokens, behind the class token.
        no_embed_class: learned positions are of the patches alone; otherwise of the prefix tokens too.
        pos_embed: ``learned`` for every place of a frame, ``space_time`` for every place of the clip, ``sincos`` (fixed
            sinusoid over all places of the clip, not stored) or ``none``.

    Raises:
        StvideoError: an argument that does not fit.
    """

    attention_kinds: tuple[str, ...] = ("joint", "space")
    pos_embed: Tensor | None

    def __init__(
        self,
        *,
        img_size: int | Sequence[int] = 224,
        patch_size: int = 16,
        tubelet_size: int = 1,
        num_frames: int = 1,
        num_classes: int = 1000,
        embed_dim: int = 768,
        attention: str = "joint",
        class_token: bool = True,
        num_registers: int = 0,
        no_embed_class: bool = False,
        pos_embed: str = "learned",
    ) -> None:
        size = check_img_size(img_size, patch_size)
        super().__init__(num_classes=num_classes, num_frames=num_frames, img_size=size, embed_dim=embed_dim)
        check_choice("attention", attention, self.attention_kinds)
        check_choice("pos_embed", pos_embed, POSITIONS)
        check_frames(num_frames, tubelet_size)
        if num_registers < 0:
            raise StvideoError(f"num_registers {num_registers} must not be negative")
        self.patch_size = patch_size
        self.tubelet_size = tubelet_size
        self.attention = attention
        self.positions = pos_embed
        self.num_prefix = int(class_token) + num_registers
        self.patch_embed = self.make_patch_embed(patch_size, embed_dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim)) if class_token else None
        self.reg_token = nn.Parameter(torch.zeros(1, num_registers, embed_dim)) if num_registers else None
        steps, places = self.extent[0], self.grid[0] * self.grid[1]
        self.pos_prefix = 0 if no_embed_class or pos_embed in ("sincos", "none") else self.num_prefix
        if pos_embed == "none":
            self.pos_embed = None
        elif pos_embed == "sincos":
            self.register_buffer("pos_embed", sinusoid(steps * places, embed_dim), persistent=False)
        else:
            count = places * (steps if pos_embed == "space_time" else 1)
            self.pos_embed = nn.Parameter(torch.zeros(1, self.pos_prefix + count, embed_dim))

    def make_patch_embed(self, patch_size: int, dim: int) -> nn.Module:
        """Create the module that turns clips (B, 3, T, H, W) into patch tokens (B, T', S, C)."""
        return PatchEmbed(patch_size, self.tubelet_size, dim)

    @property
    def grid(self) -> tuple[int, int]:
        """Count patch rows and columns at the constructed size."""
        return self.img_size[0] // self.patch_size, self.img_size[1] // self.patch_size

    @property
    def extent(self) -> tuple[int, int, int]:
        """Count tubelets, patch rows and patch columns at the constructed size."""
        return (self.num_frames // self.tubelet_size, *self.grid)

    def embeddings(self) -> list[nn.Parameter]:
        """List the learned embeddings: position, prefix and, in sub-classes, time."""
        return [p for p in (self.pos_embed, self.cls_token, self.reg_token) if isinstance(p, nn.Parameter)]

    def no_weight_decay(self) -> set[str]:
        return {"pos_embed", "cls_token", "reg_token", "time_embed"}

    def check_clip(self, clip: Tensor) -> Tensor:
        clip = super().check_clip(clip)
        check_img_size(tuple(clip.shape[3:]), self.patch_size)
        check_frames(clip.shape[2], self.tubelet_size)
        return clip

    def embed(self, clip: Tensor) -> Tokens:
        """Embed every patch of a clip and add its position."""
        batch = clip.shape[0]
        weight = next(self.patch_embed.parameters())
        patches = self.patch_embed(clip.to(weight.dtype))
        grid = (patches.shape[1], clip.shape[3] // self.patch_size, clip.shape[4] // self.patch_size)
        position = self.patch_positions(grid)
        patches = self.embed_time(patches if position is None else patches + position)
        prefix = patches.new_zeros(1, 0, self.embed_dim)
        if self.num_prefix:
            prefix = torch.cat([token for token in (self.cls_token, self.reg_token) if token is not None], dim=1)
        if self.pos_embed is not None and self.pos_prefix:
            prefix = prefix + self.pos_embed[:, : self.pos_prefix]
        prefix = prefix.unsqueeze(1).expand(batch, -1, -1, -1)
        if self.attention == "joint":
            patches = rearrange(patches, "b t n c -> b 1 (t n) c")
        elif self.attention == "space":
            prefix = prefix.expand(-1, grid[0], -1, -1)
        return Tokens(patches=patches, prefix=prefix, grid=grid)

    def patch_positions(self, grid: tuple[int, int, int]) -> Tensor | None:
        """Lay out the positions of patches on a ``grid`` (T, H, W). Returns (1, 1 or T, H W, C), None for none."""
        if self.pos_embed is None:
            return None
        own, steps = self.pos_embed[:, self.pos_prefix :], grid[0]
        if self.positions == "sincos":
            places = grid[1] * grid[2]
            if steps * places != own.shape[1]:
                own = sinusoid(steps * places, self.embed_dim).to(own)
            return own.view(1, steps, places, -1)
        if self.positions == "learned":
            return resize_grid_embedding(own, self.grid, grid[1:]).unsqueeze(1)
        frames = resize_grid_embedding(own.view(self.extent[0], -1, self.embed_dim), self.grid, grid[1:])
        return resize_time_embedding(frames.transpose(0, 1), steps).transpose(0, 1).unsqueeze(0)

    def embed_time(self, patches: Tensor) -> Tensor:
        """Add the embedding of time; nothing here. (B, T, S, C) -> (B, T, S, C)."""
        return patches


def check_frames(frames: int, tubelet_size: int) -> None:
    """Raise `StvideoError` unless whole tubelets fill ``frames``."""
    if tubelet_size < 1 or frames % tubelet_size:
        raise StvideoError(
            f"{frames} frames are not divisible by the tubelet size {tubelet_size}; "
            f"the nearest number that is: {nearest_multiple(frames, max(tubelet_size, 1))}"
        )
