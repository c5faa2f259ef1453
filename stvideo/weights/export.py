"""Models for other runtimes: `torch.export` programs and ONNX files, both for any number of clips.

    program = export_program(model)                  # program.module()(clip) equals model(clip)
    export_onnx(model, "model.onnx", metadata)       # pip install 'stvideo[onnx]'
    session = OnnxSession("model.onnx")              # session(clip) with clip (B, 3, T, H, W), a float32 array
    check_onnx(model, session)                       # raises unless the logits are the same

Frames, height and width are those of ``model.example_shape()``: token counts are plain numbers in the program, so a
reduced model stays reduced. The batch is free.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stvideo.core.errors import StvideoError
from stvideo.models.base import Backbone
from stvideo.weights.reading import METADATA_KEY

INPUT, OUTPUT, BATCH = "clip", "logits", "batch"
TOLERANCE = 1e-4
"""How far logits of ONNX Runtime may be from torch's, in units of the largest logit or of 1, whichever is larger."""
CHECKED_BATCHES = (1, 3)  # neither is the number of clips that the program is traced with
LARGEST_FILE = 2**31 - 2**20  # bytes; protobuf ends at 2 GiB, so that larger weights go into a file beside it
WEIGHTS_SUFFIX = ".data"
MOST_FRAMES = 65535
"""Of all clips of a call together: beyond it CUDA computes batch norm otherwise, which would be another program."""


def export_program(model: Backbone) -> torch.export.ExportedProgram:
    """Trace the forward pass as one graph without Python, for any number of clips.

    Args:
        model: in evaluation mode.

    Returns:
        A program on clips (B, 3, T, H, W) of the model's own size; ``.module()`` calls it,
        `torch.export.save` saves it.

    Raises:
        StvideoError: the model is in training mode, or gives a feature pyramid.
    """
    if model.training:
        raise StvideoError("export: the model is in training mode; call model.eval() first")
    if model.features_only:
        raise StvideoError("export: the model gives a feature pyramid; build it without features_only to export logits")
    shape, parameter = model.example_shape(), next(model.parameters())
    # Two clips: a program traced with one would be for one clip only.
    clips = torch.zeros(2, *shape[1:], device=parameter.device, dtype=parameter.dtype)
    with torch.no_grad():
        batch = torch.export.Dim(BATCH, max=MOST_FRAMES // shape[2])
        return torch.export.export(model, (clips,), dynamic_shapes=({0: batch},))


def export_onnx(
    model: Backbone,
    path: str | Path,
    metadata: Mapping[str, Any] | None = None,
    check: Callable[[Path], object] | None = None,
) -> list[Path]:
    """Write ``model`` as an ONNX file with input ``clip`` and output ``logits``, for any number of clips.

    The file appears when it is complete, in place of an older one. Weights above 2 GiB, which one ONNX file cannot
    hold, go to ``PATH.data`` beside it.

    Args:
        model: as for `export_program`, in float32.
        path: the file to write.
        metadata: JSON-serialisable; written under the key ``stvideo`` of the file's own metadata, together with the
            shape of the input. `OnnxSession.metadata` reads it back.
        check: called with the complete file before it gets its place; nothing is left if it raises.

    Returns:
        The files written, the model first.

    Raises:
        StvideoError: the packages onnx and onnxscript are missing, or as for `export_program`.
    """
    require("onnx", "onnxscript")
    path = Path(path)
    dtype = next(model.parameters()).dtype
    if dtype != torch.float32:
        raise StvideoError(f"{path}: the model is in {str(dtype).removeprefix('torch.')}; use model.float()")
    program = export_program(model)
    with _quiet(), torch.no_grad():  # with gradients the exporter would see another attention kernel, in other strides
        converted = torch.onnx.export(
            program,
            (),
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: BATCH},),  # here it only names the axis
            verbose=False,
        )
    assert converted is not None
    shape = [BATCH, *model.example_shape()[1:]]
    interface = {"input": {"name": INPUT, "shape": shape, "dtype": "float32"}, "output": OUTPUT}
    converted.model.metadata_props[METADATA_KEY] = json.dumps({**(metadata or {}), **interface})
    converted.model.producer_name = "stvideo"
    weights = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            # The model refers to its weights by name, which therefore is the final one already here.
            converted.save(Path(folder) / path.name, external_data=weights > LARGEST_FILE)
            del converted, program
            if check is not None:
                check(Path(folder) / path.name)
            names = sorted(file.name for file in Path(folder).iterdir())
            for name in reversed(names):  # the weights first, the model last
                with Path(folder, name).open("rb+") as stream:
                    os.fsync(stream.fileno())
                Path(folder, name).replace(path.with_name(name))
    except OSError as error:
        raise StvideoError(f"{path}: cannot be written: {error.strerror or error}") from None
    return [path.with_name(name) for name in names]


class OnnxSession:
    """An ONNX file run by ONNX Runtime: clips (B, 3, T, H, W) float32 to logits (B, num_classes), as arrays.

    Args:
        path: a file that `export_onnx` wrote.
        device: ``cpu``, or ``cuda`` where the installed ONNX Runtime has it.

    Attributes:
        metadata: what `export_onnx` was given, and ``input`` and ``output``; empty for a file of other origin.
        shape: (3, T, H, W) that it takes.

    Raises:
        StvideoError: ONNX Runtime is missing, lacks the device, or cannot read the file.
    """

    def __init__(self, path: str | Path, device: str = "cpu") -> None:
        require("onnxruntime")
        import onnxruntime

        provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}.get(device)
        if provider not in onnxruntime.get_available_providers():
            raise StvideoError(f"{path}: the installed ONNX Runtime has no {device!r}; on a GPU use onnxruntime-gpu")
        if not Path(path).is_file():
            raise StvideoError(f"{path}: no such file")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors only
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
        except Exception as error:  # its errors share no base class
            raise StvideoError(f"{path}: ONNX Runtime cannot read it: {' '.join(str(error).split())[:200]}") from None
        described = self.session.get_modelmeta().custom_metadata_map.get(METADATA_KEY, "{}")
        self.metadata: dict[str, Any] = json.loads(described)
        self.shape: tuple[int, ...] = tuple(self.session.get_inputs()[0].shape[1:])

    def __call__(self, clip: NDArray[np.float32]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = self.session.run([OUTPUT], {INPUT: clip})[0]
        return logits


def check_onnx(model: Backbone, session: OnnxSession, batches: tuple[int, ...] = CHECKED_BATCHES) -> float | None:
    """Run both on random clips and compare.

    Args:
        model: in evaluation mode.
        session: its ONNX file.
        batches: numbers of clips in a call.

    Returns:
        The largest absolute difference between logits; None if the model's own logits differ from call to call, as
        those of the ``random`` control do.

    Raises:
        StvideoError: it is above `TOLERANCE`.
    """
    generator = torch.Generator().manual_seed(0)
    device, largest = next(model.parameters()).device, 0.0

    @torch.no_grad()
    def expect(clip: torch.Tensor) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = model(clip.to(device)).float().cpu().numpy()
        return logits

    for batch in batches:
        clip = torch.randn(batch, *session.shape, generator=generator)
        expected, logits = expect(clip), session(clip.numpy())
        if logits.shape != expected.shape:
            raise StvideoError(f"ONNX Runtime gives logits of shape {logits.shape}, torch {expected.shape}")
        difference = float(np.abs(logits - expected).max(initial=0.0))
        limit = TOLERANCE * max(1.0, float(np.abs(expected).max(initial=0.0)))
        if not difference <= limit:  # not a number is no agreement either
            if float(np.abs(expect(clip) - expected).max()) > limit:
                return None
            raise StvideoError(
                f"ONNX Runtime's logits for {batch} random clips are {difference:.2g} away from torch's "
                f"(at most {limit:.2g} is rounding)"
            )
        largest = max(largest, difference)
    return largest


def require(*packages: str) -> None:
    """Raise `StvideoError` unless the optional ``packages`` are installed."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        verb = "are" if len(missing) > 1 else "is"
        raise StvideoError(f"ONNX: {' and '.join(missing)} {verb} not installed; pip install 'stvideo[onnx]'")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks to its own developers off the terminal."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
