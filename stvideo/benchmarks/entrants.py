"""A model in one of the forms in which it can be run.

eager                as PyTorch runs it
compiled             torch.compile; on a GPU with CUDA graphs for inference
optimized            model.optimize_for_inference(): layers folded, weights rearranged for a CPU's matrix product; with
                     precision=bf16 its weights are bf16
optimized-compiled   both, but for the rearranging
exported             the program that torch.export makes
onnx                 the same through onnxruntime
textbook             dense TimeSformer written plainly
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stvideo.benchmarks.candidates import Candidate
from stvideo.benchmarks.steps import forward_step, training_step
from stvideo.benchmarks.textbook import Textbook, has_textbook
from stvideo.benchmarks.timm_model import TimmModel
from stvideo.core.macs import count_macs
from stvideo.models.base import Backbone
from stvideo.models.timesformer import TimeSformer
from stvideo.weights.export import OnnxSession, export_onnx, export_program

FORMS = ("textbook", "eager", "optimized", "compiled", "optimized-compiled", "exported", "onnx")
TRAINING_FORMS = ("textbook", "eager", "compiled")
PRECISIONS, MODES = ("fp32", "bf16"), ("forward", "train")


@dataclass
class Entrant:
    """One row of the tables.

    Attributes:
        candidate: as the user wrote it.
        form: one of `FORMS`.
        model: the module whose arithmetic is counted and whose weights are trained.
        run: takes a clip (B, 3, T, H, W) to logits; the model itself or what was made of it.
        clip_shape: (3, T, H, W).
        gmacs: multiply-accumulates of one clip that this form executes, in units of 10^9.
        precision: ``bf16`` for automatic mixed precision around it, else ``fp32``.
        training: whether its step is a training step.
    """

    candidate: Candidate
    form: str
    model: nn.Module
    run: Callable[[Tensor], Any]
    clip_shape: tuple[int, ...]
    gmacs: float
    precision: str
    training: bool

    def step(self, update: bool = True) -> Callable[[Tensor], Any]:
        """Make the step that is timed; ``update``: see `training_step`."""
        if self.training:
            return training_step(self.run, self.model, self.precision, update)
        return forward_step(self.run, self.precision)


def enter(
    candidate: Candidate,
    model: Backbone,
    forms: Sequence[str],
    *,
    precision: str,
    device: torch.device,
    training: bool = False,
) -> list[Entrant]:
    """Make every one of ``forms`` that the model has, in their order.

    Args:
        candidate: what the model was built from.
        model: it is moved to ``device``.
        forms: of `FORMS`.
        precision: ``fp32`` or ``bf16``.
        device: where it runs.
        training: for training steps instead of inference.

    Raises:
        StvideoError: a form cannot be made here.
    """
    model.to(device).train(training)
    clip_shape = tuple(model.example_shape()[1:])
    entrants = []
    for form in forms:
        if form == "textbook" and not has_textbook(model):
            continue
        if isinstance(model, TimmModel) and form not in ("eager", "compiled"):
            continue
        counted, run = _make(form, model, precision, device, training)
        gmacs = count_macs(counted, (1, *clip_shape)).total
        used = "fp32" if form.startswith("optimized") else precision  # those have weights of their own precision
        entrants.append(Entrant(candidate, form, counted, run, clip_shape, gmacs, used, training))
    return entrants


def _make(
    form: str, model: Backbone, precision: str, device: torch.device, training: bool
) -> tuple[nn.Module, Callable[[Tensor], Any]]:
    """Return the module that is counted, and the callable that runs."""
    if form == "textbook":
        assert isinstance(model, TimeSformer)
        plain = Textbook(model).train(training)
        return plain, plain
    if form.startswith("optimized"):
        dtype = torch.bfloat16 if precision == "bf16" else None
        fast = model.optimize_for_inference(dtype=dtype)
        return fast, fast if form == "optimized" else model.optimize_for_inference(dtype=dtype, compile=True)
    if form == "compiled":
        # Without a CUDA graph a batch of one waits for Python instead of for the GPU.
        mode = "reduce-overhead" if device.type == "cuda" and not training else None
        return model, torch.compile(model, dynamic=False, mode=mode)
    if form == "exported":
        return model, export_program(model).module().forward
    if form == "onnx":
        with tempfile.TemporaryDirectory(prefix="stvideo-benchmark-") as folder:
            file, *_ = export_onnx(model, Path(folder) / "model.onnx")
            session = OnnxSession(file, device.type)
        return model, lambda clip: torch.from_numpy(session(clip.cpu().numpy()))
    return model, model
