"""A ViT as the papers write it, one clip, one head at a time: for comparison with the fast one."""

import math

import torch
import torch.nn.functional as F


def patches(clip, weight, bias):
    """(3, T, H, W) -> (T/t, H/p, W/p, C), patch by patch."""
    weight = weight.unsqueeze(2) if weight.ndim == 4 else weight
    dim, _, t, p, _ = weight.shape
    frames, height, width = clip.shape[1] // t, clip.shape[2] // p, clip.shape[3] // p
    out = torch.empty(frames, height, width, dim)
    for f in range(frames):
        for y in range(height):
            for x in range(width):
                cut = clip[:, f * t : (f + 1) * t, y * p : (y + 1) * p, x * p : (x + 1) * p]
                out[f, y, x] = weight.flatten(1) @ cut.flatten() + bias
    return out


def sinusoid(position, dim):
    """VideoMAE's fixed position, channel by channel."""
    angles = [position / 10000 ** (2 * (i // 2) / dim) for i in range(dim)]
    return torch.tensor([math.cos(a) if i % 2 else math.sin(a) for i, a in enumerate(angles)])


def norm(x, state, name, eps):
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)


def mlp(x, state, name, kind):
    hidden = x @ state[f"{name}.fc1.weight"].T + state[f"{name}.fc1.bias"]
    if kind == "swiglu":
        gate, value = hidden.split(hidden.shape[-1] // 2, -1)
        hidden = gate / (1 + (-gate).exp()) * value
    elif kind == "gelu_tanh":
        hidden = 0.5 * hidden * (1 + torch.tanh(math.sqrt(2 / math.pi) * (hidden + 0.044715 * hidden**3)))
    else:
        hidden = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))
    return hidden @ state[f"{name}.fc2.weight"].T + state[f"{name}.fc2.bias"]


def attend(q, k, v, heads, turn=None):
    """(Lq, C), (L, C), (L, C) -> (Lq, C); ``turn(vector, n)`` turns the n-th token's query or key of a head."""
    out, dim = [], q.shape[1] // heads
    for h in range(heads):
        part = slice(h * dim, (h + 1) * dim)
        own_q, own_k = q[:, part], k[:, part]
        if turn is not None:
            own_q, own_k = (torch.stack([turn(row, n) for n, row in enumerate(x)]) for x in (own_q, own_k))
        out.append(((own_q @ own_k.T) / math.sqrt(dim)).softmax(-1) @ v[:, part])
    return torch.cat(out, -1)


def block(x, state, name, heads, eps, kind="gelu", turn=None):
    """One block on one sequence (L, C)."""
    dim = x.shape[1]
    qkv = norm(x, state, f"{name}.norm1", eps) @ state[f"{name}.attn.qkv.weight"].T
    if f"{name}.attn.q_bias" in state:
        zeros = torch.zeros(dim)
        qkv = qkv + torch.cat((state[f"{name}.attn.q_bias"], zeros, state[f"{name}.attn.v_bias"]))
    else:
        qkv = qkv + state[f"{name}.attn.qkv.bias"]
    out = attend(*qkv.split(dim, -1), heads, turn)
    x = x + out @ state[f"{name}.attn.proj.weight"].T + state[f"{name}.attn.proj.bias"]
    return x + mlp(norm(x, state, f"{name}.norm2", eps), state, f"{name}.mlp", kind)


def attentive(x, state, heads, eps):
    """V-JEPA 2's pooler on one sequence (N, C) -> (C,)."""
    for i in range(3):
        x = block(x, state, f"pooler.blocks.{i}", heads, eps)
    name, query = "pooler.cross_attention_block", state["pooler.query_tokens"][0]
    q = query @ state[f"{name}.xattn.q.weight"].T + state[f"{name}.xattn.q.bias"]
    kv = norm(x, state, f"{name}.norm1", eps) @ state[f"{name}.xattn.kv.weight"].T + state[f"{name}.xattn.kv.bias"]
    query = query + attend(q, *kv.split(x.shape[1], -1), heads)
    return (query + mlp(norm(query, state, f"{name}.norm2", eps), state, f"{name}.mlp", "gelu"))[0]
