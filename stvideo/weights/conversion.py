"""Any known checkpoint as our safetensors or as ONNX, with a model card beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from stvideo.core.errors import StvideoError, nearest
from stvideo.core.files import exists, write_atomically
from stvideo.core.messages import logger
from stvideo.core.versions import versions
from stvideo.data.clips.preprocessing import Preprocessing
from stvideo.models.base import Backbone
from stvideo.models.registry import list_models
from stvideo.weights.export import WEIGHTS_SUFFIX, OnnxSession, check_onnx, export_onnx, require
from stvideo.weights.factory import create_model, default_classes, load_model, rebuild
from stvideo.weights.loading import LoadReport, shorten
from stvideo.weights.model_card import model_card
from stvideo.weights.reading import SUFFIX, read_checkpoint
from stvideo.weights.saving import model_description, save_model
from stvideo.weights.upstream import describe_upstream, published_preprocessing

ONNX_SUFFIX = ".onnx"


@dataclass
class Request:
    """What to use instead of what the source says.

    Attributes:
        model: name, where it cannot be told from the weights.
        arguments: of the model.
        preprocess: fields of `Preprocessing`.
        classes: names in the order of the outputs.
        overwrite: whether an existing target may be replaced.
    """

    model: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    preprocess: dict[str, Any] = field(default_factory=dict)
    classes: list[str] | None = None
    overwrite: bool = False


@dataclass
class Conversion:
    """What became of the weights, the files written, and how far ONNX Runtime's logits are from torch's."""

    report: LoadReport
    files: list[Path]
    difference: float | None = None


def convert(source: str | Path, target: str | Path, request: Request | None = None) -> Conversion:
    """Write ``source`` as safetensors or ONNX to ``target``, with a model card, and check the result.

    Args:
        source: any file or folder that `stvideo.load_checkpoint` knows; for ONNX also a name of `stvideo.list_models`.
        target: a path that ends in ``.safetensors`` or ``.onnx``.
        request: model, arguments, preprocessing and classes to use instead of those that the source tells.

    Raises:
        StvideoError: the target exists, the source is not a checkpoint, it does not hold every weight of the model, or
            ONNX Runtime computes anything else than the model.
    """
    target, request = Path(target), request or Request()
    check_target(target, request.overwrite)
    to_onnx = target.suffix == ONNX_SUFFIX
    if to_onnx:
        require("onnx", "onnxscript")
    if to_onnx and not exists(source):
        model, report, origin = _random_weights(str(source), request)
    else:
        model, report, origin = _load(source, target, request)
    if request.classes is not None and len(request.classes) != model.num_classes:
        raise StvideoError(f"{len(request.classes)} class names for a head of {model.num_classes} classes")
    preprocessing = model.preprocessing or published_preprocessing(
        model.spec["name"], model.num_classes, model.num_frames, model.img_size
    )
    metadata = {
        **{key: value for key, value in model.metadata.items() if key != "model"},
        "classes": request.classes or model.classes,
        "preprocess": Preprocessing.from_dict({**preprocessing.to_dict(), **request.preprocess}).to_dict(),
        "source": {**origin, "converted_with": versions()},
    }
    result = Conversion(report, [target])
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if to_onnx:
            _write_onnx(target, model.eval(), metadata, result)
        else:
            save_model(target, model, metadata)
            _compare(target, model)
        result.files.append(card_path(target))
        write_atomically(card_path(target), model_card(target, model, metadata))
    except (OSError, SafetensorError) as error:
        raise StvideoError(f"{target}: cannot be written: {getattr(error, 'strerror', None) or error}") from None
    return result


def check_target(target: Path, overwrite: bool) -> None:
    """Raise `StvideoError` unless ``target`` can be written without losing anything."""
    if target.suffix not in (SUFFIX, ONNX_SUFFIX):
        raise StvideoError(f"{target}: the target must end in {SUFFIX} or {ONNX_SUFFIX}")
    beside = [target.with_name(target.name + WEIGHTS_SUFFIX)] if target.suffix == ONNX_SUFFIX else []
    for path in (target, card_path(target), *beside):
        if path.is_dir():
            raise StvideoError(f"{path}: is a folder; the target is a file")
        if path.exists() and not overwrite:
            raise StvideoError(f"{path}: exists already; choose another target or say overwrite=true")


def card_path(target: Path) -> Path:
    """Name the model card of ``target``; one folder may hold a model in both formats."""
    return target.with_suffix(".md" if target.suffix == SUFFIX else ONNX_SUFFIX + ".md")


def _load(source: str | Path, target: Path, request: Request) -> tuple[Backbone, LoadReport, dict[str, Any]]:
    """Load the model in ``source``; returns it with the load report and the origin of the weights."""
    checkpoint = read_checkpoint(source, hashed=True)
    file = Path(checkpoint.path)
    if file.resolve() == target.resolve():
        raise StvideoError(f"{target}: source and target are the same file")
    if request.model is not None:
        head = checkpoint.state.get("head.weight")
        arguments = {} if head is None else {"num_classes": head.shape[0]}
        checkpoint.metadata = {**checkpoint.metadata, "model": {"name": request.model, "arguments": arguments}}
    elif not checkpoint.metadata:
        try:
            checkpoint.metadata = describe_upstream(checkpoint)
        except StvideoError as error:
            raise StvideoError(f"{file}: cannot tell its model; give model=NAME ({error})") from None
    if request.classes is not None:
        checkpoint.metadata = {**checkpoint.metadata, "classes": []}
    model, report = rebuild(checkpoint, **request.arguments)
    if report.unexpected:
        names, count = shorten(report.unexpected), len(report.unexpected)
        logger.warning(f"{source}: the model has no place for {count} of its weights, left out: {names}")
    loading = report.summary().removeprefix(f"{file}: ")
    return model, report, {"file": file.name, "sha256": checkpoint.sha256, "loading": loading}


def _random_weights(name: str, request: Request) -> tuple[Backbone, LoadReport, dict[str, Any]]:
    """Create the model called ``name`` with random weights, for measuring speed; returns as `_load`."""
    if name not in list_models():
        raise StvideoError(f"{name}: no such checkpoint, and no model's name{nearest(name, list_models())}")
    if request.model is not None:
        raise StvideoError(f"model={request.model}: the source, {name}, is a model's name already")
    logger.warning(f"{name}: not a checkpoint but a model's name; the weights are random and good for speed only")
    model = create_model(name, **request.arguments)
    model.classes = default_classes(model.num_classes)
    return model, LoadReport(name, missing=list(model.state_dict())), {"file": None, "loading": "random weights"}


def _write_onnx(target: Path, model: Backbone, metadata: dict[str, Any], result: Conversion) -> None:
    """Write an ONNX file, unless ONNX Runtime computes anything else than the model; nothing is left behind then."""

    def check(file: Path) -> None:
        if find_spec("onnxruntime") is None:
            logger.warning(f"{target}: not compared, onnxruntime is not installed; pip install 'stvideo[onnx]'")
            return
        try:
            result.difference = check_onnx(model, OnnxSession(file))
        except StvideoError as error:
            raise StvideoError(f"{target}: not written: {error}") from None
        if result.difference is None:
            logger.warning(f"{target}: not compared, the model draws at random in every call")

    result.files = export_onnx(model, target, {"model": model_description(model), **metadata}, check)


def _compare(target: Path, model: Backbone) -> None:
    """Load ``target`` and raise `StvideoError`, having removed it, unless it holds just the weights of ``model``."""
    expected, found = model.state_dict(), load_model(target).state_dict()
    if expected.keys() != found.keys() or not all(torch.equal(expected[name], found[name]) for name in expected):
        target.unlink()
        raise StvideoError(f"{target}: what was written does not load back as the same weights; it was removed")
