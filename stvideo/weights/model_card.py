"""The page of text beside a converted file: what the model is, where it comes from, what it costs, how it is used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stvideo.core.macs import count_macs
from stvideo.models.base import Backbone
from stvideo.weights.reading import METADATA_KEY
from stvideo.weights.saving import model_description


def model_card(target: Path, model: Backbone, metadata: Mapping[str, Any]) -> str:
    """Markdown for ``target``, a file of this package's or an ONNX file.

    Args:
        target: the file that was written.
        model: what it holds.
        metadata: its ``source``, ``classes`` and ``preprocess``.
    """
    description = model_description(model)
    shape = model.example_shape()
    gmacs = count_macs(model, shape).total
    source, classes = metadata["source"], metadata["classes"]
    parameters = sum(p.numel() for p in model.parameters())
    arguments = ", ".join(f"{key}={value!r}" for key, value in description.get("arguments", {}).items())
    reduction = "; ".join(
        f"{method} ({', '.join(f'{key}={value!r}' for key, value in options.items()) or 'defaults'})"
        for method, options in description["reduction"].items()
    )
    origin = f"Converted from `{source['file']}`, SHA-256 `{source['sha256']}`" if source["file"] else "Not trained"
    lines = [
        f"# {target.stem}",
        "",
        f"- Model: `{description.get('name')}`" + (f" with {arguments}" if arguments else ""),
        f"- Reduction: {reduction or 'none'}",
        f"- {origin}: {source['loading']}",
        f"- Parameters: {parameters:,}",
        f"- Cost: {gmacs:.4g} GMACs for one view, input {'x'.join(map(str, shape))} (batch, channels, frames, height, "
        "width)",
        f"- Classes: {len(classes)}, from {classes[0]!r} to {classes[-1]!r}" if classes else "- Classes: none",
        "",
        "## Preprocessing",
        "",
        *(f"- {key}: {value}" for key, value in metadata["preprocess"].items()),
        "",
        "## Use",
        "",
        *(_onnx_use(target, shape) if target.suffix == ".onnx" else _use(target, shape)),
        "",
        "The licence of the weights is that of their source; this conversion does not change it.",
    ]
    return "\n".join(lines) + "\n"


def _use(target: Path, shape: tuple[int, ...]) -> list[str]:
    return [
        "```python",
        "import stvideo",
        f'model = stvideo.load_model("{target.name}")',
        "```",
        "",
        "```",
        f"python -m stvideo.predict {'VIDEO' if shape[2] > 1 else 'IMAGE'} checkpoint={target.name}",
        "```",
    ]


def _onnx_use(target: Path, shape: tuple[int, ...]) -> list[str]:
    frames, height, width = shape[2:]
    return [
        "```python",
        "import json",
        "import numpy as np",
        "import onnxruntime",
        "",
        f'session = onnxruntime.InferenceSession("{target.name}")',
        f'about = json.loads(session.get_modelmeta().custom_metadata_map["{METADATA_KEY}"])',
        'mean, std = (np.array(about["preprocess"][key], np.float32) for key in ("mean", "std"))',
        f"frames = ...  # (batch, {frames}, {height}, {width}, 3) uint8, colours in the order of color_order",
        "clip = ((frames / np.float32(255) - mean) / std).transpose(0, 4, 1, 2, 3)",
        '(logits,) = session.run(["logits"], {"clip": clip})',
        'print([about["classes"][best] for best in logits.argmax(-1)])',
        "```",
    ]
