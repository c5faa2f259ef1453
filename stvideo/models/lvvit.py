"""LV-ViT: a ViT with a convolutional patch embedding and a second head on every patch token.

Jiang et al., "All Tokens Matter: Token Labeling for Training Better Vision Transformers", NeurIPS 2021,
arXiv 2104.10858. Parameter names are those of the released checkpoints.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stvideo.core.errors import StvideoError
from stvideo.core.tokens import Tokens
from stvideo.models.embedding import per_frame
from stvideo.models.registry import ModelEntry, register_model
from stvideo.models.vit import VisionTransformer


class ConvPatchEmbed(nn.Module):
    """Three convolutions with BatchNorm and ReLU at half resolution, then patches of those features."""

    def __init__(self, patch_size: int, dim: int, width: int = 64) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.proj = nn.Conv2d(width, dim, patch_size // 2, stride=patch_size // 2)

    def forward(self, clip: Tensor) -> Tensor:
        """Embed a clip. (B, 3, T, H, W) -> (B, T, H/p * W/p, C)."""
        return per_frame(self.project, clip).flatten(2, 3)

    def project(self, frames: Tensor) -> Tensor:
        """Embed frames. (R, 3, H, W) pixels -> (R, C, H/p, W/p)."""
        frames = frames.contiguous(memory_format=torch.channels_last)  # in which these convolutions are faster
        x = self.relu(self.bn1(self.conv1(frames)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.relu(self.bn3(self.conv3(x)))
        return self.proj(x)


class LVViT(VisionTransformer):
    """LV-ViT. The logits are those of the class token plus half the largest of each class over the patch tokens.

    This is token labeling's prediction; the released code makes it in evaluation, here it is one formula for training
    too.

    Args:
        options: as for `VisionTransformer`.

    Raises:
        StvideoError: an argument that does not fit; pooling other than ``token``, or no classes.
    """

    def make_patch_embed(self, patch_size: int, dim: int) -> nn.Module:
        if self.tubelet_size > 1:
            raise StvideoError("LV-ViT embeds single frames: tubelet_size must be 1")
        return ConvPatchEmbed(patch_size, dim)

    def init_head(self, num_classes: int, drop_rate: float) -> None:
        if self.global_pool != "token" or num_classes == 0:
            raise StvideoError("LV-ViT needs its class token and classes: its two heads are one prediction")
        super().init_head(num_classes, drop_rate)
        self.aux_head = nn.Linear(self.embed_dim, num_classes)

    def forward_head(self, tokens: Tokens, pre_logits: bool = False) -> Tensor:
        logits = super().forward_head(tokens, pre_logits)
        if pre_logits:
            return logits
        per_token = self.aux_head(self.norm(tokens.patches).flatten(1, 2))
        return logits + 0.5 * per_token.amax(dim=1)


_SMALL = dict(embed_dim=384, depth=16, num_heads=6, mlp_ratio=3.0, qkv_bias=False, residual_scale=0.5)

register_model(ModelEntry("lvvit_small_patch16_224", LVViT, _SMALL))
register_model(ModelEntry("evit_lvvit_small_patch16_224", LVViT, _SMALL, reduction="evit"))
