"""A model as fast as it goes when nothing is learned any more."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from stvideo.core.layers import Attention
from stvideo.core.packed import pack_linears
from stvideo.models.block import Block

M = TypeVar("M", bound=nn.Module)

CACHED_BYTES = 24 * 2**20
"""The widest activation, in bytes, up to which clips go through a CPU together."""


def optimize_for_inference(model: M, *, dtype: torch.dtype | None = None, compile: bool = False) -> M:
    """A copy of ``model`` for inference; the model itself stays as it is and can go on training.

    Exact but for rounding: in every TimeSformer block ``temporal_fc`` becomes part of the temporal attention's own
    projection (one product less of five), and LayerScale and constant factors on residual branches become part of the
    weights before them. On a CPU the weights of all large linear layers are rearranged for its matrix product and GELU
    becomes part of that product (`stvideo.core.packed`), which takes the memory of the weights once more. The copy has
    other weights than the model under the same names, so it is not for saving.

    Args:
        model: any model of `stvideo.list_models`, with or without reductions.
        dtype: of the weights and of the arithmetic, e.g. ``torch.bfloat16``; clips may stay float32, and the logits
            come in this type. None leaves it.
        compile: also ``torch.compile`` it, without rearranged weights; the first call with a new clip shape takes a
            minute or so. On a CPU the default is faster for most models; on a GPU compiling is what small batches need,
            and the logits of a call are overwritten by the next one: clone what is to be kept.

    Returns:
        The copy, in evaluation mode, without gradients.
    """
    fast = copy.deepcopy(model).eval().requires_grad_(False)
    for module in list(fast.modules()):
        if isinstance(module, Block | Attention):
            module.fold()
    if dtype is not None:
        fast.to(dtype)
    if compile:
        # CUDA graphs: without them a small batch waits for Python instead of for the GPU.
        on_gpu = any(parameter.is_cuda for parameter in fast.parameters())
        fast.compile(dynamic=False, mode="reduce-overhead" if on_gpu else None)
    else:
        pack_linears(fast)
    return fast


def clips_at_once(x: Tensor, widest: int) -> int:
    """How many of a batch of clips should go through together.

    On a CPU, in inference, a large batch is slower than the same clips in turn: its activations fit neither the cache
    nor the memory that the allocator keeps at hand, so that every layer waits for fresh pages.

    Args:
        x: (B, ...) the clips, or their tokens.
        widest: elements of the widest activation of one clip.

    Returns:
        A number from 1 to B; B itself on other devices, under gradients and while compiling or exporting.
    """
    batch = x.shape[0]
    if torch.compiler.is_compiling() or torch.is_grad_enabled() or x.device.type != "cpu":
        return batch
    most = max(1, CACHED_BYTES // (widest * x.element_size()))
    passes = -(-batch // most)
    return -(-batch // max(passes, 1))
