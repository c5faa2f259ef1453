"""A model as it takes part in the race: on its device, in one of the forms in which a model can be run.

eager                as PyTorch runs it
compiled             torch.compile; on a GPU with CUDA graphs for inference
optimized            model.optimize_for_inference(): layers folded, weights rearranged for a CPU's matrix product; with
                     precision=bf16 its weights are bf16
optimized-compiled   both, but for the rearranging
exported             the program that torch.export makes
onnx                 the same through onnxruntime
textbook             dense TimeSformer written plainly, from the repository's tests
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stvideo.benchmarks.targets import Target
from stvideo.benchmarks.textbook import has_textbook, textbook_form
from stvideo.core.macs import count_macs
from stvideo.weights.export import OnnxSession, export_onnx, export_program

FORMS = ("textbook", "eager", "optimized", "compiled", "optimized-compiled", "exported", "onnx")
TRAINING_FORMS = ("textbook", "eager", "compiled")


@dataclass
class Entrant:
    """One row of the tables.

    Attributes:
        target: what the user wrote.
        form: one of `FORMS`.
        model: the module whose arithmetic is counted and whose weights are trained.
        run: takes a clip (B, 3, T, H, W) to logits; the model itself or what was made of it.
        clip_shape: (3, T, H, W).
        num_classes: logits per clip.
        gmacs: multiply-accumulates of one clip that this form executes, in units of 10^9.
        parameters: numbers in the weights.
        precision: ``bf16`` for automatic mixed precision around it, else ``fp32``.
    """

    target: Target
    form: str
    model: nn.Module
    run: Callable[[Tensor], Any]
    clip_shape: tuple[int, ...]
    num_classes: int
    gmacs: float
    parameters: int
    precision: str

    @property
    def name(self) -> str:
        """For people, where forms are not in a column of their own."""
        return self.target.short if self.form == "eager" else f"{self.target.short}, {self.form}"


def enter(
    target: Target,
    model: nn.Module,
    forms: Sequence[str],
    *,
    precision: str,
    device: torch.device,
    training: bool = False,
) -> tuple[list[Entrant], list[str]]:
    """``model`` in every one of ``forms`` that it has.

    Args:
        target: where it comes from.
        model: built; it is moved to ``device``.
        forms: of `FORMS`.
        precision: ``fp32`` or ``bf16``.
        device: where it runs.
        training: for training steps instead of inference.

    Returns:
        Its entrants in the order of ``forms``, and a note for every form that this model does not have.

    Raises:
        StvideoError: a form cannot be made here.
    """
    model = model.to(device).train(training)
    clip_shape = tuple(model.example_shape()[1:])  # type: ignore[operator]
    classes = int(model.num_classes)  # type: ignore[arg-type]
    entrants: list[Entrant] = []
    notes: list[str] = []

    def add(form: str, counted: nn.Module, run: Callable[[Tensor], Any], precision: str = precision) -> None:
        gmacs = count_macs(counted, (1, *clip_shape)).total
        parameters = sum(p.numel() for p in counted.parameters())
        entrants.append(Entrant(target, form, counted, run, clip_shape, classes, gmacs, parameters, precision))

    for form in forms:
        if form == "textbook":
            if has_textbook(model):
                reference = textbook_form(model).train(training)
                add(form, reference, reference)
        elif form in ("optimized", "optimized-compiled") and not hasattr(model, "optimize_for_inference"):
            notes.append(f"{target.label} has no form {form!r}: {type(model).__name__} has no optimize_for_inference()")
        elif form == "optimized":
            fast = optimized(model, precision)
            add(form, fast, fast, "fp32")  # in its own type of numbers, without automatic mixed precision
        elif form == "optimized-compiled":
            add(form, optimized(model, precision), optimized(model, precision, compile=True), "fp32")
        elif form == "compiled":
            add(form, model, compiled(model, device, training))
        elif form == "exported":
            add(form, model, export_program(model).module().forward)
        elif form == "onnx":
            add(form, model, onnx_runner(model, device))
        else:
            add(form, model, model)
    return entrants, notes


def optimized(model: nn.Module, precision: str, compile: bool = False) -> nn.Module:
    """What ``model.optimize_for_inference()`` gives."""
    dtype = torch.bfloat16 if precision == "bf16" else None
    return model.optimize_for_inference(dtype=dtype, compile=compile)  # type: ignore[no-any-return, operator]


def compiled(model: nn.Module, device: torch.device, training: bool) -> nn.Module:
    """``model`` compiled for one shape; inference on a GPU is recorded as a CUDA graph, without which a batch of one
    waits for Python instead of for the GPU."""
    mode = "reduce-overhead" if device.type == "cuda" and not training else None
    return torch.compile(model, dynamic=False, mode=mode)  # type: ignore[return-value]


def onnx_runner(model: nn.Module, device: torch.device) -> Callable[[Tensor], Tensor]:
    """ONNX Runtime on what ``model`` exports to."""
    with tempfile.TemporaryDirectory(prefix="stvideo-benchmark-") as folder:
        file, *_ = export_onnx(model, Path(folder) / "model.onnx")
        session = OnnxSession(file, device.type)
    return lambda clip: torch.from_numpy(session(clip.cpu().numpy()))
