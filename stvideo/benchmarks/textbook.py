"""TimeSformer with divided attention as a textbook would write it: the plain form that speed is compared with."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from stvideo.models.timesformer import TimeSformer

NOT_PLAIN = frozenset(("qk_norm", "layer_scale", "residual_scale", "global_pool", "class_token"))
"""Arguments that make a model another one than the paper's."""


def has_textbook(model: nn.Module) -> bool:
    """Tell whether there is a textbook form: of dense TimeSformers with divided attention and a head."""
    return (
        isinstance(model, TimeSformer)
        and not model.reductions
        and model.attention == "divided"
        and model.num_classes > 0
        and NOT_PLAIN.isdisjoint(model.spec["arguments"])
    )


class Textbook(nn.Module):
    """Bertasius et al., arXiv 2102.05095, section 3, on the weights of ``model``.

    All tokens in one sequence, softmax spelled out, nothing fused. Clips (B, 3, T, H, W) of the constructed size to
    logits (B, num_classes).
    """

    def __init__(self, model: TimeSformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, clip: Tensor) -> Tensor:
        model: Any = self.model
        batch, frames = clip.shape[0], clip.shape[2]
        images = rearrange(clip, "b c t h w -> (b t) c h w")
        x = rearrange(model.patch_embed.proj(images), "r c h w -> r (h w) c")
        x = torch.cat((model.cls_token.expand(batch * frames, -1, -1), x), dim=1) + model.pos_embed
        cls = rearrange(x[:, :1], "(b t) 1 c -> b t c", b=batch)[:, :1]
        patches = rearrange(x[:, 1:], "(b t) s c -> (b s) t c", b=batch) + model.time_embed
        x = torch.cat((cls, rearrange(patches, "(b s) t c -> b (s t) c", b=batch)), dim=1)
        for block in model.blocks:
            x = divided_block(block, x, frames)
        logits: Tensor = model.head(model.norm(x)[:, 0])
        return logits


def divided_block(block: Any, x: Tensor, frames: int) -> Tensor:
    """Apply a block to (B, 1 + S * T, C): the class token, then every place's tokens of all frames."""
    batch = x.shape[0]

    # Time: every place is a sequence of its frames; the class token is left out.
    patches = rearrange(x[:, 1:], "b (s t) c -> (b s) t c", t=frames)
    patches = block.temporal_fc(attend(block.temporal_attn, block.temporal_norm1(patches)))
    patches = x[:, 1:] + rearrange(patches, "(b s) t c -> b (s t) c", b=batch)

    # Space: every frame is a sequence of its places, with the class token in front of each.
    cls = x[:, :1]
    every_cls = repeat(cls, "b 1 c -> (b t) 1 c", t=frames)
    by_frame = torch.cat((every_cls, rearrange(patches, "b (s t) c -> (b t) s c", t=frames)), dim=1)
    by_frame = attend(block.attn, block.norm1(by_frame))
    cls_out = rearrange(by_frame[:, :1], "(b t) 1 c -> b t c", b=batch).mean(dim=1, keepdim=True)
    patches_out = rearrange(by_frame[:, 1:], "(b t) s c -> b (s t) c", b=batch)
    x = torch.cat((cls, patches), dim=1) + torch.cat((cls_out, patches_out), dim=1)

    hidden: Tensor = F.gelu(block.mlp.fc1(block.norm2(x)))
    return x + block.mlp.fc2(hidden)


def attend(attention: Any, x: Tensor) -> Tensor:
    """Apply multi-head self-attention to (R, L, C)."""
    q, k, v = rearrange(attention.qkv(x), "r l (three h d) -> three r h l d", three=3, h=attention.num_heads)
    weights = torch.softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5, dim=-1)
    out: Tensor = attention.proj(rearrange(weights @ v, "r h l d -> r l (h d)"))
    return out
