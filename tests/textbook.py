"""Slow, readable references: every formula spelled out on plain tensors, no fused kernels, no shared code.

They take a state dict, so that the package's own modules only supply the weights.
"""

import math

import torch
from torch import Tensor

State = dict[str, Tensor]


def layer_norm(state: State, name: str, x: Tensor) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(variance + 1e-6) * state[f"{name}.weight"] + state[f"{name}.bias"]


def linear(state: State, name: str, x: Tensor) -> Tensor:
    y = x @ state[f"{name}.weight"].T
    return y + state[f"{name}.bias"] if f"{name}.bias" in state else y


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def attention_map(state: State, name: str, query: Tensor, memory: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """(Lq, C), (Lk, C) -> softmax weights (heads, Lq, Lk) and values (heads, Lk, d)."""
    dim = query.shape[-1]
    wq, wk, wv = state[f"{name}.qkv.weight"].split(dim)
    bq, bk, bv = state[f"{name}.qkv.bias"].split(dim)
    q = (query @ wq.T + bq).view(-1, heads, dim // heads).transpose(0, 1)
    k = (memory @ wk.T + bk).view(-1, heads, dim // heads).transpose(0, 1)
    v = (memory @ wv.T + bv).view(-1, heads, dim // heads).transpose(0, 1)
    return torch.softmax(q @ k.transpose(1, 2) / math.sqrt(dim // heads), dim=-1), v


def attention(state: State, name: str, query: Tensor, memory: Tensor, heads: int) -> Tensor:
    """(Lq, C), (Lk, C) -> (Lq, C)."""
    weights, values = attention_map(state, name, query, memory, heads)
    return linear(state, f"{name}.proj", (weights @ values).transpose(0, 1).reshape(query.shape))


def mlp(state: State, name: str, x: Tensor) -> Tensor:
    return linear(state, f"{name}.fc2", gelu(linear(state, f"{name}.fc1", x)))


def embed(state: State, clip: Tensor, patch: int) -> tuple[Tensor, Tensor]:
    """(3, T, H, W) -> class token (C,), patch tokens (T, S, C) with their spatial positions."""
    frames = []
    for t in range(clip.shape[1]):
        patches = []
        for y in range(0, clip.shape[2], patch):
            for x in range(0, clip.shape[3], patch):
                pixels = clip[:, t, y : y + patch, x : x + patch].reshape(-1)
                weight = state["patch_embed.proj.weight"].flatten(1)
                patches.append(weight @ pixels + state["patch_embed.proj.bias"])
        frames.append(torch.stack(patches) + state["pos_embed"][0, 1:])
    return state["cls_token"][0, 0] + state["pos_embed"][0, 0], torch.stack(frames)


def temporal(state: State, block: str, tokens: Tensor, heads: int) -> Tensor:
    """Attention over time at every position, with its residual. (T, S, C) -> (T, S, C)."""
    out = torch.zeros_like(tokens)
    for s in range(tokens.shape[1]):
        x = layer_norm(state, f"{block}.temporal_norm1", tokens[:, s])
        out[:, s] = linear(state, f"{block}.temporal_fc", attention(state, f"{block}.temporal_attn", x, x, heads))
    return tokens + out


def feed_forward(state: State, block: str, x: Tensor) -> Tensor:
    return x + mlp(state, f"{block}.mlp", layer_norm(state, f"{block}.norm2", x))


def timesformer(state: State, clip: Tensor, patch: int, heads: int, attention_type: str) -> Tensor:
    """Logits of one clip (3, T, H, W)."""
    depth = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))
    cls, tokens = embed(state, clip, patch)
    if attention_type != "space":
        tokens = tokens + state["time_embed"][0].unsqueeze(1)
    if attention_type == "divided":
        for i in range(depth):
            block = f"blocks.{i}"
            tokens = temporal(state, block, tokens, heads)
            cls_outputs, rows = [], []
            for t in range(tokens.shape[0]):
                x = torch.cat((cls[None], tokens[t]))
                normed = layer_norm(state, f"{block}.norm1", x)
                out = attention(state, f"{block}.attn", normed, normed, heads)
                cls_outputs.append(out[0])
                rows.append(tokens[t] + out[1:])
            cls = feed_forward(state, block, cls + torch.stack(cls_outputs).mean(0))
            tokens = feed_forward(state, block, torch.stack(rows))
    else:
        sequences = [tokens.flatten(0, 1)] if attention_type == "joint" else list(tokens)
        ends = []
        for sequence in sequences:
            x = torch.cat((cls[None], sequence))
            for i in range(depth):
                normed = layer_norm(state, f"blocks.{i}.norm1", x)
                x = x + attention(state, f"blocks.{i}.attn", normed, normed, heads)
                x = feed_forward(state, f"blocks.{i}", x)
            ends.append(x[0])
        cls = torch.stack(ends).mean(0)
    return linear(state, "head", layer_norm(state, "norm", cls))


def bins(length: int, count: int) -> list[range]:
    return [range(math.floor(i * length / count), math.ceil((i + 1) * length / count)) for i in range(count)]


def grid_conv(state: State, name: str, x: Tensor) -> Tensor:
    """Depth-wise convolution with zero padding, LayerNorm, GELU, linear. (T, H, W, C) -> (T, H, W, out)."""
    kernel = state[f"{name}.conv.weight"]
    kernel = kernel.view(len(kernel), -1, 3, 3)  # (C, 1 or 3 frames, 3, 3)
    kt = kernel.shape[1]
    out = torch.zeros_like(x)
    frames, height, width, _ = x.shape
    for t in range(frames):
        for y in range(height):
            for z in range(width):
                total = state[f"{name}.conv.bias"].clone()
                for dt in range(kt):
                    for dy in range(3):
                        for dx in range(3):
                            at = (t + dt - kt // 2, y + dy - 1, z + dx - 1)
                            if 0 <= at[0] < frames and 0 <= at[1] < height and 0 <= at[2] < width:
                                total = total + kernel[:, dt, dy, dx] * x[at]
                out[t, y, z] = total
    return linear(state, f"{name}.proj", gelu(layer_norm(state, f"{name}.norm", out)))


def stgm_divided(
    state: State, prefix: str, blocks: list[str], cls: Tensor, tokens: Tensor, size: tuple[int, int], grid, heads: int
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The semantic token generation module on the full patch grid of one clip, for divided attention.

    Args:
        prefix: name of the module in the state dict.
        blocks: names of the blocks that it stands for.
        cls: (C,).
        tokens: (T, H*W, C).
        size: (H, W).
        grid: semantic (t, h, w).

    Returns:
        class token (C,), semantic tokens (t, h*w, C), and per layer the (t, h*w, L) attention over the slot's patches.
    """
    height, width = size
    slots, rows, columns = grid
    on_grid = tokens.view(-1, height, width, tokens.shape[-1])
    gate = grid_conv(state, f"{prefix}.gate", on_grid)[..., 0]
    centers = torch.zeros(slots, rows, columns, tokens.shape[-1])
    for k, frames in enumerate(bins(tokens.shape[0], slots)):
        for i, ys in enumerate(bins(height, rows)):
            for j, xs in enumerate(bins(width, columns)):
                cells = [(t, y, x) for t in frames for y in ys for x in xs]
                weight = torch.softmax(torch.stack([gate[c] for c in cells]), dim=0)
                centers[k, i, j] = sum(w * on_grid[c] for w, c in zip(weight, cells, strict=True))
    s = (centers + grid_conv(state, f"{prefix}.offset", centers)).flatten(1, 2)
    maps = []
    for n, block in enumerate(blocks):
        if n == 1:
            s = s + state[f"{prefix}.center_space"]
            if f"{prefix}.center_time" in state:
                s = s + state[f"{prefix}.center_time"].transpose(0, 1)
        s = temporal(state, block, s, heads)
        cls_outputs, new, weights = [], [], []
        for k, frames in enumerate(bins(tokens.shape[0], slots)):
            patches = torch.cat([tokens[t] for t in frames])
            query = layer_norm(state, f"{block}.norm1", torch.cat((cls[None], s[k])))
            own = query[:1] if n == 0 else query
            memory = torch.cat((own, layer_norm(state, f"{block}.norm1", patches)))
            out = attention(state, f"{block}.attn", query, memory, heads) * state[f"{prefix}.attn_scale.{n}.gamma"]
            cls_outputs.append(out[0])
            new.append(s[k] + out[1:])
            full, _ = attention_map(state, f"{block}.attn", query, memory, heads)
            weights.append(full.mean(0)[1:, len(own) :])
        maps.append(weights)
        scale = state[f"{prefix}.mlp_scale.{n}.gamma"]
        cls, s = cls + torch.stack(cls_outputs).mean(0), torch.stack(new)
        cls = cls + scale * mlp(state, f"{block}.mlp", layer_norm(state, f"{block}.norm2", cls))
        s = s + scale * mlp(state, f"{block}.mlp", layer_norm(state, f"{block}.norm2", s))
    return cls, s, maps
