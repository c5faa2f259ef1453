"""Read a checkpoint file, once: weights in our names, and what the file says of itself.

Our own format is safetensors with a JSON description under the metadata key ``stvideo``; upstream files are recognised
by their content. Nothing here runs code from a file: PyTorch files are read with ``weights_only=True`` and, beyond
tensors and plain containers, only what upstream files carry is let through: NumPy's scalars and ``argparse.Namespace``.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import pickle
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor

from stvideo.core.errors import StvideoError
from stvideo.core.files import exists
from stvideo.weights.layouts import convert_layout

METADATA_KEY = "stvideo"
SUFFIX = ".safetensors"
WEIGHTS_NAME = "model.safetensors"
CHECKSUMS = "checksums.json"
"""Beside the weights in a checkpoint folder: SHA-256 by file name."""
DESCRIPTION = {
    "": dict, "model": dict, "model.name": str, "model.arguments": dict, "model.reduction": dict | None,
    "classes": list, "preprocess": dict, "config": dict, "source": dict,
}  # fmt: skip

# Where upstream files keep their weights, most specific first, and what they put in front of the names.
CONTAINER_KEYS = ("model_state", "state_dict_ema", "model_ema", "state_dict", "model", "module")
NAME_PREFIXES = ("module.", "model.", "_orig_mod.")

_SCALAR = np.float64(0).__reduce__()[0]
HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(code)) for code in np.typecodes["AllInteger"] + np.typecodes["AllFloat"] + "?"),
    (_SCALAR, "numpy.core.multiarray.scalar"),  # NumPy 1 wrote the one name, NumPy 2 writes the other
    (_SCALAR, "numpy._core.multiarray.scalar"),
]


@dataclass
class Checkpoint:
    """A file that has been read.

    Attributes:
        path: of the file.
        state: weights by name, in our layout.
        metadata: our description of the model; empty if the file has none.
        sha256: of the file's content, in hexadecimal, where it was asked for or checked.
    """

    path: str
    state: dict[str, Tensor]
    metadata: dict[str, Any] = field(default_factory=dict)
    sha256: str | None = None


def resolve_checkpoint(path: str | Path) -> Path:
    """Find the weights file that ``path`` means: a file, a checkpoint folder's, or a run folder's best or newest.

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


def read_checkpoint(path: str | Path, hashed: bool = False) -> Checkpoint:
    """Read any known file; weights of a checkpoint folder are compared with their checksum on the way.

    Args:
        path: as for `resolve_checkpoint`.
        hashed: fill in ``sha256`` of any file.

    Raises:
        StvideoError: it does not exist, is damaged, holds no weights, or would run code.
    """
    file = resolve_checkpoint(path)
    if file.suffix == ".onnx":
        raise StvideoError(f"{file}: an ONNX file is for other runtimes; give the checkpoint that it was made from")
    expected = _expected_checksum(file)
    hashed, data, sha256 = hashed or expected is not None, None, None
    try:
        if file.stat().st_size == 0:
            raise StvideoError(f"{file}: the file is empty")
        if hashed or file.suffix != SUFFIX:  # other safetensors files are mapped into memory
            data = file.read_bytes()
    except OSError as error:
        raise StvideoError(f"{file}: cannot be read: {error.strerror or error}") from None
    if data is not None and hashed:
        sha256 = hashlib.sha256(data).hexdigest()
    if expected not in (None, sha256):
        raise _damaged(file, f"{WEIGHTS_NAME} does not have its checksum")
    metadata: dict[str, Any] = {}
    if data is None or file.suffix == SUFFIX or data[8:9] == b"{":
        state, metadata = _read_safetensors(file, data)
    else:
        state = _find_weights(file, read_torch(file, data))
    state = _strip_prefixes(state)
    return Checkpoint(str(file), state if "model" in metadata else convert_layout(state), metadata, sha256)


def read_torch(file: Path, data: bytes | None = None) -> Any:
    """Read what ``torch.save`` wrote, without running code.

    Args:
        file: for messages, and read if there is no ``data``.
        data: its content.

    Raises:
        StvideoError: it is damaged, or holds objects that only code can make.
    """
    try:
        with torch.serialization.safe_globals(HARMLESS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's advice is to people who wrote the file
            return torch.load(file if data is None else io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle fails in many ways, none of which helps
        kind = re.search(r"GLOBAL ([\w.]+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if kind is None:
            raise StvideoError(f"{file}: not a PyTorch or safetensors file, or a damaged one") from None
        raise StvideoError(
            f"{file}: refused: it holds an object of type {kind[1]}, and loading that would run code; "
            "save the state dict alone"
        ) from None


def _read_safetensors(file: Path, data: bytes | None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and our description; from ``data``, or mapped from the file itself."""
    try:
        if data is None:
            with safe_open(file, framework="pt") as tensors:
                state = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
                texts = tensors.metadata() or {}
        else:
            state = safetensors.torch.load(data)
            texts = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
    except Exception as error:  # many kinds, not all of them the library's own
        raise StvideoError(f"{file}: not a readable safetensors file: {' '.join(str(error).split())[:200]}") from None
    return state, _read_description(file, texts.get(METADATA_KEY, "{}"))


def _read_description(file: Path, text: str) -> dict[str, Any]:
    """Parse our description, and check the kind of everything that other modules rely on."""
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError):
        raise StvideoError(f"{file}: its description (metadata key {METADATA_KEY!r}) is not readable JSON") from None
    values = {"": metadata}
    for prefix, inside in (("", metadata), ("model.", metadata.get("model") if isinstance(metadata, dict) else None)):
        values |= {prefix + key: value for key, value in inside.items()} if isinstance(inside, dict) else {}
    for key, kind in DESCRIPTION.items():
        if key in values and not isinstance(values[key], kind):
            where = f"{key} in its description" if key else "its description"
            raise StvideoError(f"{file}: {where} must not be of type {type(values[key]).__name__}")
    return dict(metadata)


def _expected_checksum(file: Path) -> str | None:
    """Read the SHA-256 that a checkpoint folder lists for its weights; None for a file anywhere else."""
    listed = file.resolve().with_name(CHECKSUMS)
    if file.name != WEIGHTS_NAME or not listed.exists():
        return None
    try:
        return str(json.loads(listed.read_text())[WEIGHTS_NAME])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise _damaged(file, f"{CHECKSUMS} does not list the weights") from None


def _damaged(file: Path, problem: str) -> StvideoError:
    return StvideoError(f"{file.parent}: damaged checkpoint: {problem}; use another one of the run")


def _find_weights(file: Path, content: Any) -> dict[str, Tensor]:
    """Find the state dict inside a loaded file, wherever upstream put it."""
    for _ in range(3):
        if not isinstance(content, dict):
            break
        if any(isinstance(value, Tensor) for value in content.values()):
            return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        content = next((content[key] for key in CONTAINER_KEYS if isinstance(content.get(key), dict)), None)
    raise StvideoError(f"{file}: no weights in it (looked under {', '.join(CONTAINER_KEYS)})")


def _strip_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take off what training wrappers put in front of every name."""
    while state:
        prefix = next((p for p in NAME_PREFIXES if all(name.startswith(p) for name in state)), None)
        if prefix is None:
            break
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state
