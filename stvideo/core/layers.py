"""Building blocks shared by models and reductions, in timm's parameter names.

Shapes: R rows (independent sequences), L tokens in a sequence, C channels, h heads, d = C / h.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stvideo.core.packed import PackedLinear, linear_rows

MLP_KINDS = ("gelu", "gelu_tanh", "swiglu")


class DropPath(nn.Module):
    """Drop a residual branch for whole clips (stochastic depth), rescaling the rest.

    The draw is one per clip, so that all frames of a clip lose the branch together.

    Args:
        rate: probability of dropping, in training.
        scale: constant factor on the branch.
    """

    def __init__(self, rate: float = 0.0, scale: float = 1.0) -> None:
        super().__init__()
        self.rate = rate
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """Drop and rescale the branch. (B, ..., C) -> (B, ..., C)."""
        if self.scale != 1.0:
            x = x * self.scale
        if self.rate == 0.0 or not self.training:
            return x
        keep = 1.0 - self.rate
        mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)
        return x * mask.div_(keep)

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3f}, scale={self.scale:g}"


class LayerScale(nn.Module):
    """Learned scale per channel (CaiT)."""

    def __init__(self, dim: int, init: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), init))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Mlp(nn.Module):
    """Linear, activation, linear. (..., C) -> (..., C).

    Args:
        dim: channels C.
        hidden_dim: outputs of the first layer.
        kind: ``gelu``, ``gelu_tanh`` (its tanh approximation) or ``swiglu`` (Shazeer, arXiv 2002.05202): the first half
            of the first layer's outputs, through SiLU, gates the second, as in timm's packed form.
    """

    def __init__(self, dim: int, hidden_dim: int, kind: str = "gelu") -> None:
        super().__init__()
        self.kind = kind
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.act = nn.SiLU() if kind == "swiglu" else nn.GELU("tanh" if kind == "gelu_tanh" else "none")
        self.fc2 = nn.Linear(hidden_dim // 2 if kind == "swiglu" else hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.act, nn.SiLU):
            gate, value = self.fc1(x).chunk(2, dim=-1)
            return self.fc2(self.act(gate) * value)
        if isinstance(self.fc1, PackedLinear) and self.kind == "gelu":
            return self.fc2(self.fc1.rows(x, 0, self.fc1.out_features, "gelu"))
        hidden = self.fc1(x)
        if hidden.requires_grad or torch.compiler.is_compiling():
            return self.fc2(self.act(hidden))
        # In place: a second buffer of the network's widest activation costs more than the GELU itself on a CPU.
        return self.fc2(torch.ops.aten.gelu_(hidden, approximate=self.act.approximate))


class Attention(nn.Module):
    """Multi-head attention with one ``qkv`` projection, used both on a sequence and across two.

    The softmax is always torch's fused kernel; the class-attention row that some reductions need is computed
    beside it (`class_attention_row`), never as part of a full attention map.

    Args:
        dim: channels C.
        num_heads: h.
        qkv_bias: bias of the projection; ``"qv"`` for queries and values only, as ``q_bias`` and ``v_bias``.
        qk_norm: LayerNorm on queries and keys.
        norm_eps: its epsilon.
    """

    def __init__(
        self, dim: int, num_heads: int, qkv_bias: bool | str = True, qk_norm: bool = False, norm_eps: float = 1e-6
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias is True)
        self.q_bias = nn.Parameter(torch.zeros(dim)) if qkv_bias == "qv" else None
        self.v_bias = nn.Parameter(torch.zeros(dim)) if qkv_bias == "qv" else None
        head_dim = dim // num_heads
        self.q_norm = nn.LayerNorm(head_dim, eps=norm_eps) if qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(head_dim, eps=norm_eps) if qk_norm else nn.Identity()
        self.proj = nn.Linear(dim, dim)

    def packed_bias(self) -> Tensor | None:
        """Join ``q_bias``, zeros for the keys and ``v_bias``; None where the projection has its own bias or none."""
        if self.q_bias is None or self.v_bias is None:
            return None
        return torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))

    def fold(self) -> None:
        """Work separate biases into the projection; for inference only."""
        bias = self.packed_bias()
        if bias is not None:
            self.qkv.bias = nn.Parameter(bias, requires_grad=False)
            self.q_bias = self.v_bias = None

    def project(self, x: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        """Project to channels ``start`` to ``stop`` of queries, keys and values side by side. (..., C) -> (..., n)."""
        out = self.qkv(x) if stop is None else linear_rows(self.qkv, x, start, stop)
        bias = self.packed_bias()
        return out if bias is None else out + bias[start:stop]

    def project_qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project to query, key and value. (R, L, C) -> each (R, h, L, d)."""
        return self.split_heads(self.project(x))

    def split_heads(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Split the projection (R, L, 3C) into query, key, value, each (R, h, L, d); views of it but for a norm."""
        rows, length, width = qkv.shape
        heads = qkv.view(rows, length, 3, self.num_heads, width // (3 * self.num_heads))
        q, k, v = heads.permute(2, 0, 3, 1, 4).unbind(0)
        return self.q_norm(q), self.k_norm(k), v

    def project_q(self, x: Tensor) -> Tensor:
        """Project to queries. (R, L, C) -> (R, h, L, d)."""
        rows, length, dim = x.shape
        q = self.project(x, 0, dim).view(rows, length, self.num_heads, dim // self.num_heads)
        return self.q_norm(q.transpose(1, 2))

    def project_kv(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Project to keys and values. (R, L, C) -> each (R, h, L, d)."""
        rows, length, dim = x.shape
        kv = self.project(x, dim, 3 * dim).view(rows, length, 2, self.num_heads, dim // self.num_heads)
        k, v = kv.permute(2, 0, 3, 1, 4).unbind(0)
        return self.k_norm(k), v

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """Fused attention and the output projection. q (R, h, Lq, d), k and v (R, h, Lk, d) -> (R, Lq, C).

        ``mask`` is boolean or a float bias and broadcasts to (R, h, Lq, Lk).
        """
        return self.join_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=mask))

    def join_heads(self, x: Tensor) -> Tensor:
        """Project the output of all heads. (R, h, L, d) -> (R, L, C)."""
        return self.proj(x.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor) -> Tensor:
        """Self-attention. (R, L, C) -> (R, L, C)."""
        return self.attend(*self.project_qkv(x))


class CrossAttention(nn.Module):
    """Multi-head attention with separate query and key-value projections, to be given what they projected.

    Args:
        dim: channels C.
        num_heads: h.
        qkv_bias: bias of both projections.
        project_out: whether there is an output projection.
    """

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool = True, project_out: bool = True) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim, bias=qkv_bias)
        self.kv = nn.Linear(dim, 2 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim) if project_out else nn.Identity()

    def heads(self, x: Tensor) -> Tensor:
        """Split channels into heads. (R, L, C) -> (R, h, L, d)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def forward(self, q: Tensor, kv: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend with queries (R, Lq, C) to keys and values (R, Lk, 2C), both projected. Returns (R, Lq, C)."""
        k, v = kv.chunk(2, dim=-1)
        out = F.scaled_dot_product_attention(self.heads(q), self.heads(k), self.heads(v), attn_mask=mask)
        return self.proj(out.transpose(1, 2).flatten(2))

    def weights(self, q: Tensor, kv: Tensor) -> Tensor:
        """Compute the attention map averaged over heads, for traces. (R, Lq, C), (R, Lk, 2C) -> (R, Lq, Lk)."""
        return attention_weights(self.heads(q), self.heads(kv.chunk(2, dim=-1)[0]))


def class_attention_row(q_class: Tensor, k: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute the class token's attention to every token, averaged over heads (EViT, section 3.1).

    Args:
        q_class: (R, h, 1, d) query of the class token.
        k: (R, h, L, d) keys of all tokens, the class token included.
        bias: (R, L) added to the logits, e.g. log of the token sizes, -inf on padding.

    Returns:
        (R, L) float32; each row sums to 1. Costs O(h L d): the L x L map is never built.
    """
    return attention_weights(q_class, k, bias).squeeze(1)


def attention_weights(q: Tensor, k: Tensor, bias: Tensor | None = None) -> Tensor:
    """Build the attention map averaged over heads: for pictures, and for methods that need more than a row.

    q (R, h, Lq, d), k (R, h, Lk, d) and bias (R, Lk) -> (R, Lq, Lk) float32.
    """
    return head_attention_weights(q, k, bias).mean(dim=1)


def head_attention_weights(q: Tensor, k: Tensor, bias: Tensor | None = None) -> Tensor:
    """Build the attention map of every head; shapes as for `attention_weights`. Returns (R, h, Lq, Lk) float32."""
    logits = (q.float() @ k.float().transpose(-2, -1)) / math.sqrt(k.shape[-1])
    if bias is not None:
        logits = logits + bias[:, None, None]
    return logits.softmax(dim=-1)


def policy_attention(q: Tensor, k: Tensor, v: Tensor, policy: Tensor, bias: Tensor | None = None) -> Tensor:
    """Attend with differentiable keep decisions (DynamicViT, equation 11): every token sees itself and the kept ones.

    Args:
        q, k, v: (R, h, L, d).
        policy: (R, L) in [0, 1], 1 for prefix tokens.
        bias: (R, L) added to the logits.

    Returns:
        (R, h, L, d). The full map is built in float32, as the method needs it in training.
    """
    logits = (q.float() @ k.float().transpose(-2, -1)) / math.sqrt(k.shape[-1])
    if bias is not None:
        logits = logits + bias[:, None, None]
    count = logits.shape[-1]
    seen = policy.float()[:, None, None]
    seen = seen + (1.0 - seen) * torch.eye(count, device=logits.device)
    weight = (logits - logits.amax(dim=-1, keepdim=True)).exp() * seen
    weight = (weight + 1e-6 / count) / (weight.sum(dim=-1, keepdim=True) + 1e-6)
    return (weight @ v.float()).to(v.dtype)


@torch.no_grad()
def fold_scale(linear: nn.Linear, scale: Tensor | float) -> None:
    """Work a factor on the outputs of ``linear``, a number or one per channel (C,), into its weights."""
    scale = torch.as_tensor(scale, dtype=linear.weight.dtype, device=linear.weight.device)
    linear.weight.mul_(scale.reshape(-1, 1))
    if linear.bias is not None:
        linear.bias.mul_(scale)


@torch.no_grad()
def fold_linear(first: nn.Linear, second: nn.Linear) -> None:
    """Make ``first`` do what ``second`` did after it: one product instead of two (exact, worked out in float64)."""
    weight, bias = second.weight.double(), second.bias.double()
    if first.bias is not None:
        first.bias.copy_(weight @ first.bias.double() + bias)
    else:
        first.bias = nn.Parameter(bias.to(first.weight.dtype))
    first.weight.copy_(weight @ first.weight.double())


def gather_tokens(x: Tensor, index: Tensor) -> Tensor:
    """Pick tokens by position. x (B, F, N, C), index (B, F, K) int64 -> (B, F, K, C).

    Whole rows are copied, which is faster than an element-wise gather and has a cheap backward.
    """
    batch, groups, count, dim = x.shape
    first = torch.arange(batch * groups, device=x.device).view(batch, groups, 1) * count
    rows = (index + first).flatten()
    return x.reshape(-1, dim).index_select(0, rows).view(batch, groups, index.shape[2], dim)


def resize_grid_embedding(embed: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Resize a positional embedding bicubically. (R, h*w, C) -> (R, h'*w', C); no antialiasing, as in EViT."""
    if old == new:
        return embed
    grid = embed.reshape(-1, *old, embed.shape[-1]).permute(0, 3, 1, 2).float()
    grid = F.interpolate(grid, size=new, mode="bicubic", align_corners=False)
    return grid.permute(0, 2, 3, 1).flatten(1, 2).to(embed.dtype)


def resize_time_embedding(embed: Tensor, new: int) -> Tensor:
    """Resize an embedding over time linearly. (R, T, C) -> (R, T', C)."""
    if embed.shape[1] == new:
        return embed
    resized = F.interpolate(embed.transpose(1, 2).float(), size=new, mode="linear", align_corners=False)
    return resized.transpose(1, 2).to(embed.dtype)
