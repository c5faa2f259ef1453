"""TimeSformer with divided attention the way a textbook would write it: the plain form that speed is held against.

One line per sentence of the paper (Bertasius et al., arXiv 2102.05095, section 3), all tokens in one sequence, softmax
spelled out, nothing fused and nothing clever. Parameter names are the package's, so ``load_state_dict`` takes the
weights of a dense ``timesformer_*`` as they are.
"""

import torch
from einops import rearrange, repeat
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head self-attention. (R, L, C) -> (R, L, C)."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = rearrange(self.qkv(x), "r l (three h d) -> three r h l d", three=3, h=self.num_heads)
        attention = torch.softmax(q @ k.transpose(-2, -1) * self.scale, dim=-1)
        return self.proj(rearrange(attention @ v, "r h l d -> r l (h d)"))


class Mlp(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, dim: int, hidden_dim: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Module):
    """Attention over time, attention over space, feed-forward part, each with its residual."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, norm_eps: float):
        super().__init__()
        self.temporal_norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.temporal_attn = Attention(dim, num_heads)
        self.temporal_fc = nn.Linear(dim, dim)
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """(B, 1 + S * T, C): the class token, then every place's tokens of all frames."""
        batch = x.shape[0]

        # Time: every place is a sequence of its frames; the class token is left out.
        patches = rearrange(x[:, 1:], "b (s t) c -> (b s) t c", t=frames)
        patches = self.temporal_fc(self.temporal_attn(self.temporal_norm1(patches)))
        patches = x[:, 1:] + rearrange(patches, "(b s) t c -> b (s t) c", b=batch)

        # Space: every frame is a sequence of its places, with the class token in front of each.
        cls = x[:, :1]
        every_cls = repeat(cls, "b 1 c -> (b t) 1 c", t=frames)
        by_frame = torch.cat((every_cls, rearrange(patches, "b (s t) c -> (b t) s c", t=frames)), dim=1)
        by_frame = self.attn(self.norm1(by_frame))
        cls_out = rearrange(by_frame[:, :1], "(b t) 1 c -> b t c", b=batch).mean(dim=1, keepdim=True)
        patches_out = rearrange(by_frame[:, 1:], "(b t) s c -> b (s t) c", b=batch)
        x = torch.cat((cls, patches), dim=1) + torch.cat((cls_out, patches_out), dim=1)

        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    """(B T, 3, H, W) -> (B T, S, C)."""

    def __init__(self, patch_size: int, dim: int):
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch_size, patch_size)

    def forward(self, frames: Tensor) -> Tensor:
        return rearrange(self.proj(frames), "r c h w -> r (h w) c")


class ReferenceTimeSformer(nn.Module):
    """Clips (B, 3, T, H, W) of the constructed size to logits (B, num_classes)."""

    def __init__(
        self,
        *,
        img_size: tuple[int, int] = (224, 224),
        patch_size: int = 16,
        num_frames: int = 8,
        num_classes: int = 400,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        norm_eps: float = 1e-6,
    ):
        super().__init__()
        places = (img_size[0] // patch_size) * (img_size[1] // patch_size)
        self.patch_embed = PatchEmbed(patch_size, embed_dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + places, embed_dim))
        self.time_embed = nn.Parameter(torch.zeros(1, num_frames, embed_dim))
        self.blocks = nn.ModuleList(Block(embed_dim, num_heads, mlp_ratio, norm_eps) for _ in range(depth))
        self.norm = nn.LayerNorm(embed_dim, eps=norm_eps)
        self.head = nn.Linear(embed_dim, num_classes)

    def forward(self, clip: Tensor) -> Tensor:
        batch, _, frames, _, _ = clip.shape
        x = self.patch_embed(rearrange(clip, "b c t h w -> (b t) c h w"))
        x = torch.cat((self.cls_token.expand(batch * frames, -1, -1), x), dim=1) + self.pos_embed
        cls = rearrange(x[:, :1], "(b t) 1 c -> b t c", b=batch)[:, :1]
        patches = rearrange(x[:, 1:], "(b t) s c -> (b s) t c", b=batch) + self.time_embed
        x = torch.cat((cls, rearrange(patches, "(b s) t c -> b (s t) c", b=batch)), dim=1)
        for block in self.blocks:
            x = block(x, frames)
        return self.head(self.norm(x)[:, 0])
