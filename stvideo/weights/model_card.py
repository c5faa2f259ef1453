"""The page of text beside a converted file: what the model is, where it comes from, what it costs, how it is used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stvideo.core.macs import count_macs
from stvideo.models.base import Backbone
from stvideo.weights.reading import METADATA_KEY
from stvideo.weights.saving import model_description

USE = """\
```python
import stvideo
model = stvideo.load_model("{name}")
```

```
python -m stvideo.predict {what} checkpoint={name}
```
"""
ONNX_USE = """\
```python
import json
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("{name}")
about = json.loads(session.get_modelmeta().custom_metadata_map["{key}"])
mean, std = (np.array(about["preprocess"][key], np.float32) for key in ("mean", "std"))
frames = ...  # (batch, {shape[0]}, {shape[1]}, {shape[2]}, 3) uint8, colours in the order of color_order
clip = ((frames / np.float32(255) - mean) / std).transpose(0, 4, 1, 2, 3)
(logits,) = session.run(["logits"], {{"clip": clip}})
print([about["classes"][best] for best in logits.argmax(-1)])
```
"""


def model_card(target: Path, model: Backbone, metadata: Mapping[str, Any]) -> str:
    """Markdown for ``target``, a file of this package's or an ONNX file.

    Args:
        target: the file that was written.
        model: what it holds.
        metadata: its ``source``, ``classes`` and ``preprocess``.
    """
    description, source, classes = model_description(model), metadata["source"], metadata["classes"]
    shape, name = model.example_shape(), target.name
    reductions = [f"{method} ({_listed(options)})" for method, options in description["reduction"].items()]
    origin = f"Converted from `{source['file']}`, SHA-256 `{source['sha256']}`" if source["file"] else "Not trained"
    use = ONNX_USE if target.suffix == ".onnx" else USE
    lines = [
        f"# {target.stem}",
        "",
        f"- Model: `{description['name']}` ({_listed(description['arguments'])})",
        f"- Reduction: {'; '.join(reductions) or 'none'}",
        f"- {origin}: {source['loading']}",
        f"- Parameters: {sum(p.numel() for p in model.parameters()):,}",
        f"- Cost: {count_macs(model, shape).total:.4g} GMACs for one view, input {'x'.join(map(str, shape))} (batch, "
        "channels, frames, height, width)",
        f"- Classes: {len(classes)}, from {classes[0]!r} to {classes[-1]!r}" if classes else "- Classes: none",
        "",
        "## Preprocessing",
        "",
        *(f"- {key}: {value}" for key, value in metadata["preprocess"].items()),
        "",
        "## Use",
        "",
        use.format(name=name, shape=shape[2:], key=METADATA_KEY, what="VIDEO" if shape[2] > 1 else "IMAGE"),
        "The licence of the weights is that of their source; this conversion does not change it.",
    ]
    return "\n".join(lines) + "\n"


def _listed(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in options.items()) or "defaults"
