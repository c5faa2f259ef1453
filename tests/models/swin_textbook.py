"""Slow, readable references for Swin-like layers: tokens one by one, no rolling, no window arrays, no shared code."""

import math
from itertools import product

import torch
from torch import Tensor

State = dict[str, Tensor]


def layer_norm(state: State, name: str, x: Tensor) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(variance + 1e-5) * state[f"{name}.weight"] + state[f"{name}.bias"]


def linear(state: State, name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def mlp(state: State, name: str, x: Tensor) -> Tensor:
    x = linear(state, f"{name}.fc1", x)
    return linear(state, f"{name}.fc2", 0.5 * x * (1 + torch.erf(x / math.sqrt(2))))


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(Lq, C), (Lk, C), (Lk, C) -> (Lq, C) and the weights (heads, Lq, Lk)."""
    q, k, v = (t.view(len(t), heads, -1).transpose(0, 1) for t in (q, k, v))
    logits = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])
    weights = torch.softmax(logits if bias is None else logits + bias, dim=-1)
    return (weights @ v).transpose(0, 1).flatten(1), weights


def swin_block(state: State, x: Tensor, window: tuple[int, int, int], shifted: bool, heads: int) -> Tensor:
    """One block on a clip (T, H, W, C). Tokens attend to each other if they stand in the same cell of a grid of
    windows whose origin lies at the shift; the cells at the borders are smaller. Padding takes part, as zeros.
    """
    full = window
    size = x.shape[:3]
    cover = [length <= side for length, side in zip(size, window, strict=True)]
    window = tuple(length if c else side for length, side, c in zip(size, window, cover, strict=True))
    shift = [0 if c or not shifted else side // 2 for side, c in zip(window, cover, strict=True)]
    padded = [math.ceil(length / side) * side for length, side in zip(size, window, strict=True)]
    normed = layer_norm(state, "norm1", x)
    tokens = torch.zeros(*padded, x.shape[-1])
    tokens[: size[0], : size[1], : size[2]] = normed
    cells: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for place in product(*(range(length) for length in padded)):
        cell = tuple((p - s) // w for p, s, w in zip(place, shift, window, strict=True))
        cells.setdefault(cell, []).append(place)
    out = torch.zeros_like(tokens)
    table = state["attn.relative_position_bias_table"]
    for places in cells.values():
        seen = torch.stack([tokens[p] for p in places])
        q, k, v = linear(state, "attn.qkv", seen).chunk(3, dim=-1)
        bias = torch.zeros(heads, len(places), len(places))
        for i, j in product(range(len(places)), repeat=2):
            row = 0
            for a, b, side in zip(places[i], places[j], full, strict=True):
                row = row * (2 * side - 1) + (a - b) + side - 1
            bias[:, i, j] = table[row]
        result = linear(state, "attn.proj", softmax_attention(q, k, v, heads, bias)[0])
        for place, value in zip(places, result, strict=True):
            out[place] = value
    x = x + out[: size[0], : size[1], : size[2]]
    return x + mlp(state, "mlp", layer_norm(state, "norm2", x))


def semantic_layer(
    state: State, tokens: Tensor, memory: Tensor, heads: int, shortcut: bool = True
) -> tuple[Tensor, Tensor]:
    """A layer whose queries (L, C) read a memory (M, C). Returns the tokens and the head-averaged attention (L, M)."""
    q = linear(state, "attn.q", layer_norm(state, "norm1", tokens))
    k, v = linear(state, "attn.kv", layer_norm(state, "norm1", memory)).chunk(2, dim=-1)
    out, weights = softmax_attention(q, k, v, heads)
    out = state["layer_scale_1"] * linear(state, "attn.proj", out)
    x = tokens + out if shortcut else out
    return x + state["layer_scale_2"] * mlp(state, "mlp", layer_norm(state, "norm2", x)), weights.mean(0)


def bins(length: int, count: int) -> list[range]:
    return [range(math.floor(i * length / count), math.ceil((i + 1) * length / count)) for i in range(count)]


def max_centers(x: Tensor, rows: int, columns: int) -> Tensor:
    """(H, W, C) -> (rows, columns, C)."""
    cells = [
        torch.stack([x[i, j] for i in ys for j in xs]).amax(0)
        for ys in bins(x.shape[0], rows)
        for xs in bins(x.shape[1], columns)
    ]
    return torch.stack(cells).view(rows, columns, -1)


def grid_conv(state: State, name: str, x: Tensor) -> Tensor:
    """Depth-wise 3x3 with zero padding, LayerNorm, GELU, linear. (H, W, C) -> (H, W, out)."""
    kernel = state[f"{name}.conv.weight"].view(-1, 3, 3)
    out = torch.zeros_like(x)
    for y, z in product(range(x.shape[0]), range(x.shape[1])):
        out[y, z] = state[f"{name}.conv.bias"]
        for dy, dx in product(range(3), repeat=2):
            if 0 <= y + dy - 1 < x.shape[0] and 0 <= z + dx - 1 < x.shape[1]:
                out[y, z] += kernel[:, dy, dx] * x[y + dy - 1, z + dx - 1]
    out = layer_norm(state, f"{name}.norm", out)
    out = (0.5 * out * (1 + torch.erf(out / math.sqrt(2)))) @ state[f"{name}.proj.weight"].T
    return out + state.get(f"{name}.proj.bias", torch.zeros(()))


def gated_centers(state: State, x: Tensor, rows: int, columns: int) -> Tensor:
    """The paper's pooling and offset. (H, W, C) -> (rows, columns, C)."""
    gate = grid_conv(state, "centers.gate", x)[..., 0]
    centers = []
    for ys, xs in product(bins(x.shape[0], rows), bins(x.shape[1], columns)):
        cells = list(product(ys, xs))
        weight = torch.softmax(torch.stack([gate[c] for c in cells]), dim=0)
        centers.append(sum(w * x[c] for w, c in zip(weight, cells, strict=True)))
    centers = torch.stack(centers).view(rows, columns, -1)
    return centers + grid_conv(state, "centers.offset", centers)


def generate(
    state: State, x: Tensor, centers: Tensor, side: int, window: int, keys: int, heads: int, shortcut: bool
) -> tuple[Tensor, Tensor]:
    """First STGM layer on one frame (H, W, C) with given centres (h, w, C), window by window.

    Returns the semantic tokens (h, w, C), and for every patch the number of the token that attends to it most.
    """
    height, width = x.shape[:2]
    rows, columns = centers.shape[0] // side, centers.shape[1] // side
    out = torch.zeros_like(centers)
    best = torch.full((height, width), -1.0)
    winner = torch.zeros(height, width, dtype=torch.long)
    for i, j in product(range(rows), range(columns)):
        own = centers[i * side : (i + 1) * side, j * side : (j + 1) * side].flatten(0, 1)
        ys, xs = (
            range(start, start + min(keys, length))
            for length, count, n in ((height, rows, i), (width, columns, j))
            for start in [
                max(0, min(length - min(keys, length), int((n + 0.5) * length / count - min(keys, length) / 2)))
            ]
        )
        cells = list(product(ys, xs))
        memory = torch.cat((own, torch.stack([x[c] for c in cells])))
        result, weights = semantic_layer(state, own, memory, heads, shortcut)
        out[i * side : (i + 1) * side, j * side : (j + 1) * side] = result.view(side, side, -1)
        for c, column in zip(cells, weights[:, len(own) :].T, strict=True):
            value, token = column.max(0)
            if value > best[c]:
                best[c] = value
                winner[c] = (i * side + int(token) // side) * columns * side + j * side + int(token) % side
    return out, winner
