"""LV-ViT: a ViT with a convolutional patch embedding and a second head on every patch token.

Jiang et al., "All Tokens Matter: Token Labeling for Training Better Vision Transformers", NeurIPS 2021,
arXiv 2104.10858. Parameter names are those of the released checkpoints.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from stvideo.core.errors import StvideoError
from stvideo.core.tokens import Tokens
from stvideo.models.registry import ModelEntry, register_model
from stvideo.models.vit import VisionTransformer


class ConvPatchEmbed(nn.Module):
    """Three 3-or-7-pixel convolutions with BatchNorm and ReLU at half resolution, then patches of those features."""

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

    def forward(self, frames: Tensor) -> Tensor:
        """(R, 3, H, W) pixels -> (R, H/p * W/p, C)."""
        frames = frames.contiguous(memory_format=torch.channels_last)  # in which these convolutions are faster
        x = self.relu(self.bn1(self.conv1(frames)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.relu(self.bn3(self.conv3(x)))
        return self.proj(x).flatten(2).transpose(1, 2)


class LVViT(VisionTransformer):
    """LV-ViT-S: 16 blocks of width 384, MLP ratio 3, no qkv bias, residual branches halved.

    The logits are those of the class token plus half the largest of each class over the patch tokens (token labeling's
    prediction; the released code does so in evaluation, here it is one formula for training too).

    Args:
        options: as for `VisionTransformer`, whose defaults become LV-ViT-S's.
    """

    def __init__(
        self,
        *,
        embed_dim: int = 384,
        depth: int = 16,
        num_heads: int = 6,
        mlp_ratio: float = 3.0,
        qkv_bias: bool = False,
        residual_scale: float = 0.5,
        **options: Any,
    ) -> None:
        super().__init__(
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            qkv_bias=qkv_bias,
            residual_scale=residual_scale,
            **options,
        )
        if self.global_pool != "token" or self.num_classes == 0:
            raise StvideoError("LV-ViT needs its class token and classes: its two heads are one prediction")
        self.aux_head = nn.Linear(embed_dim, self.num_classes)
        self.init_weights(options.get("weight_init", "published"))

    def make_patch_embed(self, patch_size: int, dim: int) -> nn.Module:
        return ConvPatchEmbed(patch_size, dim)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        if num_classes < 1:
            raise StvideoError("reset_classifier: LV-ViT needs classes: its two heads are one prediction")
        super().reset_classifier(num_classes, global_pool)
        old = self.aux_head.weight
        self.aux_head = nn.Linear(self.embed_dim, num_classes, device=old.device, dtype=old.dtype)

    def forward_head(self, tokens: Tokens, pre_logits: bool = False) -> Tensor:
        logits = super().forward_head(tokens, pre_logits)
        if pre_logits:
            return logits
        per_token = self.aux_head(self.norm(tokens.patches).flatten(1, 2))
        return logits + 0.5 * per_token.amax(dim=1)


register_model(ModelEntry("lvvit_small_patch16_224", LVViT))
register_model(ModelEntry("evit_lvvit_small_patch16_224", LVViT, reduction="evit"))
