"""Write our own format: safetensors with a JSON description of the model."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from stvideo.core.errors import StvideoError
from stvideo.models.base import Backbone
from stvideo.reduction.apply import reduction_options
from stvideo.weights.reading import METADATA_KEY


def save_model(
    path: str | Path, model: Backbone, metadata: dict[str, Any], state: dict[str, Tensor] | None = None
) -> None:
    """Write the weights and ``metadata`` as safetensors, to a temporary name first and then renamed.

    Args:
        path: the file to write.
        model: whose state dict is saved.
        metadata: JSON-serialisable; ``model`` is filled in from the model where it is absent.
        state: the weights, where the model itself holds only a share of them.

    Raises:
        StvideoError: the model was optimised for inference.
    """
    path = Path(path)
    if model.optimized:
        raise StvideoError(f"{path}: a model optimised for inference has no weights to save; save the one it came from")
    description = {"model": model_description(model), **metadata}
    state = model.state_dict() if state is None else state
    state = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    temporary = path.with_name(path.name + ".tmp")
    save_file(state, temporary, metadata={METADATA_KEY: json.dumps(description)})
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def model_description(model: Backbone) -> dict[str, Any]:
    """Describe ``model`` by name, arguments and reductions, from which `load_model` rebuilds it."""
    return {**model.spec, "reduction": reduction_options(model)}
