"""Copy weights from a file into a model."""

from __future__ import annotations

import logging
import math
import re
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from stvideo.core.errors import StvideoError
from stvideo.core.layers import resize_grid_embedding, resize_time_embedding
from stvideo.models.base import Backbone
from stvideo.models.vit import VisionTransformer
from stvideo.weights.layouts import convert_layout, timesformer
from stvideo.weights.reading import Checkpoint, read_checkpoint

REPLACEABLE = r"^(head|head_dist|reductions)\."
"""Weights that a new task or a new reduction brings with it."""
NOTHING = r"(?!)"


@dataclass
class LoadReport:
    """What became of the weights.

    Attributes:
        path: where they came from.
        matched: names that were loaded.
        missing: names of the model that the file does not have (they keep their initial values).
        unexpected: names of the file that the model does not have.
        resized: names of embeddings that were resized to the model's size.
        copied: names filled from other weights of the file (temporal from spatial attention).
    """

    path: str
    matched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    copied: list[str] = field(default_factory=list)

    @property
    def fresh_head(self) -> bool:
        """Whether the classification head was not in the file, so that the model's predictions mean nothing yet."""
        return any(name.startswith("head.") for name in self.missing)

    def summary(self) -> str:
        """Format one line for people."""
        parts = [f"{len(self.matched)} weights loaded"]
        for what in ("resized", "copied", "missing", "unexpected"):
            names = getattr(self, what)
            if names:
                parts.append(f"{len(names)} {what} ({shorten(names)})")
        return f"{self.path}: {'; '.join(parts)}"


def shorten(names: list[str]) -> str:
    """Join the first four names."""
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def load_checkpoint(model: Backbone, path: str | Path) -> LoadReport:
    """Load weights into ``model``; only the head and reductions may be missing from the file.

    Positional embeddings are resized bicubically, time embeddings linearly. A head of another size is left as it is
    in the model and reported as missing.

    Raises:
        StvideoError: not a checkpoint, or one for another model (it says what differs).
    """
    return copy_weights(model, read_checkpoint(path), may_lack=replaceable(model))


def initialize(model: Backbone, source: str) -> LoadReport:
    """Start ``model`` from other weights: a file, or ``timm:NAME`` for timm's pretrained ViT or DeiT.

    Image weights become video weights as the model says (`Backbone.prepare_image_state`). The head may differ.

    Raises:
        StvideoError: the file does not fit, or timm's weights cannot be had.
    """
    name = source.removeprefix("timm:")
    checkpoint = read_checkpoint(source) if name == source else _timm_checkpoint(name)
    state = model.prepare_image_state(checkpoint.state)
    copied = sorted(state.keys() - checkpoint.state.keys())
    may_lack = [replaceable(model)]
    if model.image_may_lack and not timesformer.matches(checkpoint.state):
        may_lack.append(model.image_may_lack)
    report = copy_weights(model, Checkpoint(checkpoint.path, state, checkpoint.metadata), "|".join(may_lack))
    report.copied = copied
    report.matched = [name for name in report.matched if name not in set(copied)]
    return report


def replaceable(model: Backbone) -> str:
    """Pattern of the weights that a file may lack: head, reductions, and what the model itself names (``may_lack``)."""
    return f"{REPLACEABLE}|{model.may_lack}" if model.may_lack else REPLACEABLE


def copy_weights(model: Backbone, checkpoint: Checkpoint, may_lack: str = NOTHING) -> LoadReport:
    """Copy what fits, resizing embeddings and leaving out a head of another size.

    Args:
        model: changed in place.
        checkpoint: whose weights are copied.
        may_lack: pattern of the names that may be missing from them.

    Raises:
        StvideoError: the weights are of another model, or a weight is missing that may not be.
    """
    report = LoadReport(checkpoint.path)
    refusal = f"{checkpoint.path}: not for this model:"
    own, state = model.state_dict(), {}
    for name, value in model.prepare_dense_state(checkpoint.state).items():
        if name not in own:
            report.unexpected.append(name)
            continue
        differs = value.shape != own[name].shape and value.ndim == 3
        if differs and name in ("pos_embed", "time_embed") and isinstance(model, VisionTransformer):
            value = _resize(checkpoint, name, value, model)
            report.resized.append(name)
        if value.shape == own[name].shape:
            state[name] = value
        elif not name.startswith("head."):
            raise StvideoError(f"{refusal} {name} is {_shape(value)} in the file and {_shape(own[name])} in the model")
    foreign = [name for name in report.unexpected if re.search(r"(^|\.)blocks\.", name)]
    if foreign:
        raise StvideoError(
            f"{refusal} it has {len(foreign)} block weights that the model lacks, e.g. {', '.join(foreign[:3])}"
        )
    if not state:
        raise StvideoError(f"{checkpoint.path}: no weight in it has a name that this model knows")
    report.matched = sorted(state)
    report.missing = [name for name in own if name not in state]
    lacking = [name for name in report.missing if not re.search(may_lack, name)]
    if lacking:
        is_image = any(".temporal_" in name or name == "time_embed" for name in lacking)
        hint = "; to start from image weights give them as init=PATH" if is_image else ""
        raise StvideoError(f"{refusal} {len(lacking)} of its weights are missing, e.g. {', '.join(lacking[:3])}{hint}")
    model.load_state_dict(state, strict=False)
    return report


def _resize(checkpoint: Checkpoint, name: str, value: Tensor, model: VisionTransformer) -> Tensor:
    """Resize an embedding to the model's size; positional ones with the class positions that the model has in front."""
    if name == "time_embed":
        return resize_time_embedding(value, model.extent[0])
    count, size = value.shape[1], checkpoint.metadata.get("model", {}).get("arguments", {}).get("img_size")
    grid = (math.isqrt(count), math.isqrt(count))
    if isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) for side in size):
        grid = (size[0] // model.patch_size, size[1] // model.patch_size)
    prefix = count - grid[0] * grid[1]
    if prefix < model.pos_prefix or prefix > max(2, model.pos_prefix):
        raise StvideoError(f"{checkpoint.path}: cannot tell the grid of its positional embedding {_shape(value)}")
    return torch.cat((value[:, : model.pos_prefix], resize_grid_embedding(value[:, prefix:], grid, model.grid)), dim=1)


def _timm_checkpoint(name: str) -> Checkpoint:
    """Fetch timm's pretrained weights."""
    import timm

    if not timm.is_model(name):
        raise StvideoError(f"timm:{name}: timm knows no model of this name")
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries would bury the one line that helps
    try:
        upstream = timm.create_model(name, pretrained=True)
    except Exception as error:  # the hub client raises errors of many libraries
        raise StvideoError(
            f"timm:{name}: its pretrained weights cannot be had here ({' '.join(str(error).split())[:200]}); on a "
            "machine with internet access save timm.create_model(NAME, pretrained=True).state_dict() and give that "
            "file as init=PATH"
        ) from None
    return Checkpoint(f"timm:{name}", convert_layout(upstream.state_dict()))


def _shape(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "a scalar"
