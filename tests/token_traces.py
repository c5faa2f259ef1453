"""Traces made by hand, so that pictures are tested without any model."""

import torch

from stvideo.core.trace import TokenTrace

CPU = torch.device("cpu")


def dense_trace(t: int, h: int, w: int, batch: int = 1) -> TokenTrace:
    """Nothing was reduced."""
    return TokenTrace.start(batch, (t, h, w), CPU).finish()


def keep_trace(kept: torch.Tensor, fuse: bool, layer: int = 3, score: torch.Tensor | None = None) -> TokenTrace:
    """Patches where ``kept`` (T, H, W) is true stay; the others are dropped, or fused into one token per frame."""
    t, h, w = kept.shape
    trace = TokenTrace.start(1, (t, h, w), CPU)
    flat = kept.flatten()
    moved = torch.where(flat, flat.long().cumsum(0) - 1, -1)
    fused = torch.zeros_like(flat)
    if fuse:
        frame = torch.arange(t).repeat_interleave(h * w)
        moved = torch.where(flat, moved, int(flat.sum()) + frame)
        fused = ~flat
    score = None if score is None else score.flatten()[None]
    trace.record(layer, "evit", moved[None], fused=fused[None], score=score)
    return trace.finish()


def semantic_trace(t: int, h: int, w: int, grid: tuple[int, int, int], layer: int = 4) -> TokenTrace:
    """Every patch goes to the semantic token of its cell of ``grid``."""
    trace = TokenTrace.start(1, (t, h, w), CPU)
    slots, rows, columns = grid
    ids = (
        (torch.arange(t) * slots // t)[:, None, None] * rows * columns
        + (torch.arange(h) * rows // h)[None, :, None] * columns
        + (torch.arange(w) * columns // w)[None, None]
    )
    trace.record(layer, "stgm", ids.reshape(1, -1), kind="semantic")
    return trace.finish()
