"""Reading and writing weights: the only module that opens a checkpoint file.

Our own format is safetensors with a JSON description under the metadata key ``stvideo``. Upstream files are
recognised by their content. Nothing here runs code from a file: PyTorch files are read with ``weights_only=True`` and,
beyond tensors and plain containers, only ``argparse.Namespace`` is let through, which DeiT's and EViT's files carry.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from stvideo.core.errors import StvideoError
from stvideo.core.files import exists
from stvideo.core.layers import resize_grid_embedding, resize_time_embedding
from stvideo.reduction.apply import reduction_options

METADATA_KEY = "stvideo"
WEIGHTS_NAME = "model.safetensors"

# Where upstream files keep their weights, most specific first, and what they put in front of the names.
CONTAINER_KEYS = ("model_state", "state_dict_ema", "model_ema", "state_dict", "model", "module")
NAME_PREFIXES = ("module.", "model.", "_orig_mod.")

# Weights that a new task or a new reduction brings with it.
REPLACEABLE = r"^(head|head_dist|reductions)\."


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
        """One line for people."""
        parts = [f"{len(self.matched)} weights loaded"]
        for what in ("resized", "copied", "missing", "unexpected"):
            names = getattr(self, what)
            if names:
                shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
                parts.append(f"{len(names)} {what} ({shown})")
        return f"{self.path}: {'; '.join(parts)}"


@dataclass
class Checkpoint:
    """Weights as read from a file: names in our layout, and our description if it is our format."""

    path: str
    state: dict[str, Tensor]
    metadata: dict[str, Any] = field(default_factory=dict)


def resolve_checkpoint(path: str | Path) -> Path:
    """The weights file that ``path`` means: a file itself, a checkpoint folder's, or a run folder's best or newest.

    Raises:
        StvideoError: there is none.
    """
    path = Path(path)
    if not exists(path):
        raise StvideoError(f"{path}: no such checkpoint")
    if path.is_file():
        return path
    for candidate in (path / WEIGHTS_NAME, path / "best" / WEIGHTS_NAME, path / "last" / WEIGHTS_NAME):
        if candidate.is_file():
            return candidate
    raise StvideoError(f"{path}: no checkpoint in this folder (looked for {WEIGHTS_NAME}, best/ and last/)")


def save_model(
    path: str | Path, model: nn.Module, metadata: dict[str, Any], state: dict[str, Tensor] | None = None
) -> None:
    """Write the weights and ``metadata`` as safetensors, to a temporary name first and then renamed.

    Args:
        path: the file to write.
        model: whose state dict is saved.
        metadata: JSON-serialisable; ``model`` is filled in from the model where it is absent.
        state: the weights, where the model itself holds only a share of them.
    """
    path = Path(path)
    if getattr(model, "optimized", False):
        raise StvideoError(f"{path}: a model optimised for inference has no weights to save; save the one it came from")
    description = {"model": model_description(model), **metadata}
    state = model.state_dict() if state is None else state
    state = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    temporary = path.with_name(path.name + ".tmp")
    save_file(state, temporary, metadata={METADATA_KEY: json.dumps(description)})
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def model_description(model: nn.Module) -> dict[str, Any]:
    """What rebuilds ``model`` with `load_model`: its name, arguments and reductions."""
    spec: dict[str, Any] = getattr(model, "spec", {})
    return {**spec, "reduction": reduction_options(model)}


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read any known file; names come back in our layout.

    Raises:
        StvideoError: it does not exist, is damaged, holds no weights, or would run code.
    """
    file = resolve_checkpoint(path)
    if file.stat().st_size == 0:
        raise StvideoError(f"{file}: the file is empty")
    if file.suffix == ".onnx":
        raise StvideoError(f"{file}: an ONNX file is for other runtimes; give the checkpoint that it was made from")
    with file.open("rb") as stream:
        head = stream.read(16)
    is_safetensors = file.suffix == ".safetensors" or head[8:9] == b"{"
    metadata: dict[str, Any] = {}
    if is_safetensors:
        try:
            with safe_open(file, framework="pt") as tensors:
                metadata = json.loads((tensors.metadata() or {}).get(METADATA_KEY, "{}"))
                state = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, ValueError) as error:
            raise StvideoError(f"{file}: not a readable safetensors file: {_one_line(error)}") from None
    else:
        state = _find_weights(file, _read_torch(file))
    return Checkpoint(str(file), _strip_prefixes(state), metadata)


def load_checkpoint(model: nn.Module, path: str | Path) -> LoadReport:
    """Load weights into ``model``; only the head and reductions may be missing from the file.

    Positional embeddings are resized bicubically, time embeddings linearly. A head of another size is left as it is
    in the model and reported as missing.

    Raises:
        StvideoError: not a checkpoint, or one for another model (it says what differs).
    """
    checkpoint = read_checkpoint(path)
    report = copy_weights(model, checkpoint, dict(checkpoint.state))
    check_complete(report, may_lack=replaceable(model))
    return report


def initialize(model: nn.Module, source: str) -> LoadReport:
    """Start ``model`` from other weights: a file, or ``timm:NAME`` for timm's pretrained ViT or DeiT.

    Image weights become video weights as in TimeSformer: spatial attention and its norm are copied into temporal
    attention, and ``temporal_fc`` is zero in all blocks but the first. The head may differ.

    Raises:
        StvideoError: the file does not fit, or timm's weights cannot be had.
    """
    checkpoint = (
        _timm_checkpoint(source.removeprefix("timm:")) if source.startswith("timm:") else read_checkpoint(source)
    )
    state = dict(checkpoint.state)
    is_image = "time_embed" not in state and not any(".temporal_attn." in name for name in state)
    copied = []
    if is_image and any(".temporal_attn." in name for name in model.state_dict()):
        copied = _copy_space_to_time(state)
        model.zero_temporal_fc()  # type: ignore[operator]
    report = copy_weights(model, checkpoint, state)
    report.copied = copied
    report.matched = [name for name in report.matched if name not in set(copied)]
    check_complete(report, may_lack=replaceable(model) + (r"|^time_embed$|\.temporal_fc\." if is_image else ""))
    return report


def replaceable(model: nn.Module) -> str:
    """Pattern of the weights that a file may lack: head, reductions, and what the model itself names (``may_lack``)."""
    own: str | None = getattr(model, "may_lack", None)
    return f"{REPLACEABLE}|{own}" if own else REPLACEABLE


def check_complete(report: LoadReport, may_lack: str) -> None:
    """Raise `StvideoError` if a weight is missing whose name the pattern ``may_lack`` does not match."""
    lacking = [name for name in report.missing if not re.search(may_lack, name)]
    if lacking:
        is_image = any(".temporal_" in name or name == "time_embed" for name in lacking)
        hint = "; to start from image weights give them as init=PATH" if is_image else ""
        raise StvideoError(
            f"{report.path}: not for this model: {len(lacking)} of its weights are missing, "
            f"e.g. {', '.join(lacking[:3])}{hint}"
        )


def copy_weights(model: nn.Module, checkpoint: Checkpoint, state: dict[str, Tensor]) -> LoadReport:
    """Copy what fits, resizing embeddings and leaving out a head of another size."""
    report = LoadReport(checkpoint.path)
    convert: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = getattr(model, "convert_state", None)
    if convert is not None:  # a model whose upstream files come in several layouts
        state = convert(state)
    own = model.state_dict()
    for name, value in list(state.items()):
        if name not in own:
            report.unexpected.append(name)
            del state[name]
        elif value.shape != own[name].shape:
            if name == "pos_embed":
                state[name] = _resize_positions(checkpoint, value, model)
                report.resized.append(name)
            elif name == "time_embed":
                state[name] = resize_time_embedding(value, own[name].shape[1])
                report.resized.append(name)
            elif name.startswith("head."):
                del state[name]
            if name in state and state[name].shape != own[name].shape:
                raise StvideoError(
                    f"{checkpoint.path}: not for this model: {name} is {_shape(value)} in the file "
                    f"and {_shape(own[name])} in the model"
                )
    foreign = [name for name in report.unexpected if re.search(r"(^|\.)blocks\.", name)]
    if foreign:
        raise StvideoError(
            f"{checkpoint.path}: not for this model: it has {len(foreign)} block weights that the model lacks, "
            f"e.g. {', '.join(foreign[:3])}"
        )
    if not state:
        raise StvideoError(f"{checkpoint.path}: no weight in it has a name that this model knows")
    model.load_state_dict(state, strict=False)
    report.matched = sorted(state)
    report.missing = [name for name in own if name not in state]
    return report


def _resize_positions(checkpoint: Checkpoint, value: Tensor, model: Any) -> Tensor:
    """A positional embedding of another grid, with the class positions that the model has in front."""
    count = value.shape[1]
    size = checkpoint.metadata.get("preprocess", {}).get("img_size")
    side = math.isqrt(count)
    grid = (side, side)
    if isinstance(size, (list, tuple)):
        grid = (size[0] // model.patch_size, size[1] // model.patch_size)
    prefix = count - grid[0] * grid[1]
    if prefix < model.num_prefix or prefix > 2:
        raise StvideoError(f"{checkpoint.path}: cannot tell the grid of its positional embedding {_shape(value)}")
    return torch.cat((value[:, : model.num_prefix], resize_grid_embedding(value[:, prefix:], grid, model.grid)), dim=1)


def _copy_space_to_time(state: dict[str, Tensor]) -> list[str]:
    """Fill temporal attention and its norm from spatial attention. Returns the new names."""
    new = {}
    for name, value in state.items():
        match = re.match(r"^(blocks\.\d+)\.(attn|norm1)\.(.+)$", name)
        if match:
            new[f"{match[1]}.temporal_{match[2]}.{match[3]}"] = value.clone()
    state.update(new)
    return sorted(new)


def _timm_checkpoint(name: str) -> Checkpoint:
    import timm

    if not timm.is_model(name):
        raise StvideoError(f"timm:{name}: timm knows no model of this name")
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries would bury the one line that helps
    try:
        upstream = timm.create_model(name, pretrained=True)
    except Exception as error:  # the hub client raises errors of many libraries
        raise StvideoError(
            f"timm:{name}: its pretrained weights cannot be had here ({_one_line(error)[:200]}); on a machine with "
            "internet access save timm.create_model(NAME, pretrained=True).state_dict() and give that file as init=PATH"
        ) from None
    return Checkpoint(f"timm:{name}", _strip_prefixes(upstream.state_dict()))


def _read_torch(file: Path) -> Any:
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        match = re.search(r"GLOBAL ([\w.]+)", str(error))
        if match:
            raise StvideoError(
                f"{file}: refused: it holds an object of type {match[1]}, and loading that would run code; "
                "save the state dict alone"
            ) from None
        raise StvideoError(f"{file}: not a PyTorch or safetensors file, or a damaged one") from None
    except Exception:  # a damaged pickle fails in many ways, none of which helps
        raise StvideoError(f"{file}: not a PyTorch or safetensors file, or a damaged one") from None


def _find_weights(file: Path, content: Any) -> dict[str, Tensor]:
    """The state dict inside a loaded file, wherever upstream put it."""
    for _ in range(3):
        if not isinstance(content, dict):
            break
        if any(isinstance(value, Tensor) for value in content.values()):
            return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        inner = next((content[key] for key in CONTAINER_KEYS if isinstance(content.get(key), dict)), None)
        content = inner
    raise StvideoError(f"{file}: no weights in it (looked under {', '.join(CONTAINER_KEYS)})")


def _strip_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take off what training wrappers put in front of every name."""
    while state:
        prefix = next((p for p in NAME_PREFIXES if all(name.startswith(p) for name in state)), None)
        if prefix is None:
            break
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _shape(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "a scalar"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
