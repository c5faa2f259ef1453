"""Turn any known checkpoint into this package's safetensors or into ONNX, with a model card beside it.

    python -m stvideo.convert TimeSformer_divST_8x32_224_K400.pyth timesformer_k400.safetensors
    python -m stvideo.convert deit_small_patch16_224.pth deit_small.safetensors classes=imagenet_classes.txt
    python -m stvideo.convert evit.pth evit.safetensors model=evit_deit_small_patch16_224 keep_rate=0.7
    python -m stvideo.convert runs/k400_stvit best.safetensors
    python -m stvideo.convert runs/k400_stvit best.onnx
    python -m stvideo.convert evit_deit_small_patch16_224 speed_only.onnx keep_rate=0.5

The source is a run folder, a .safetensors file of this package, or an upstream file: TimeSformer, DeiT, EViT, LV-ViT,
timm's ViT and Swin, official Swin, STViT-R, torchvision's swin3d. Its model is told from names and shapes of the
weights; model=NAME names it where that cannot work. Files are read without running any code from them. The result is
loaded and compared with the source before the command ends. TARGET.md says what the file is.

A target ending in .onnx is the network for other runtimes (pip install 'stvideo[onnx]'): input "clip", float32 (batch,
3, frames, height, width), of the model's own size but any batch; output "logits". Class names, preprocessing and model
are in the file's metadata under "stvideo", as JSON. It is written only if ONNX Runtime gives the model's own logits
for random clips. For trying out a runtime's speed the source may be the name of a model; its weights are random then.

    model=NAME               one of stvideo.list_models()
    ARGUMENT=VALUE           any argument of the model: img_size, num_frames, layer_scale, keep_rate of a variant, ...
    classes=FILE             class names, one a line, in the order of the outputs
    mean=[..] std=[..] color_order=bgr sampling=segment stride=2 target_fps=25
                             how clips are prepared, where the published way is not what these weights saw
    overwrite=false          replace an existing target
    plugins=[MODULE]         modules with models and reductions of one's own
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from stvideo.core.errors import StvideoError, nearest
from stvideo.core.messages import logger
from stvideo.data.clips.preprocessing import Preprocessing
from stvideo.models.registry import list_models
from stvideo.runtime.run_folder import prepare_output, versions, write_atomically
from stvideo.settings import cli
from stvideo.settings.config import load_config
from stvideo.settings.plugins import take_plugins
from stvideo.weights.export import WEIGHTS_SUFFIX, OnnxSession, check_onnx, is_installed, onnx_files, require
from stvideo.weights.factory import create_model, load_model
from stvideo.weights.model_card import model_card
from stvideo.weights.reading import (
    Checkpoint,
    LoadReport,
    check_complete,
    copy_weights,
    model_description,
    read_checkpoint,
    resolve_checkpoint,
    save_model,
)
from stvideo.weights.upstream import describe_upstream, published_preprocessing

SUFFIX, ONNX_SUFFIX = ".safetensors", ".onnx"
OF_THE_MODEL = ("num_frames", "img_size")  # preprocessing that is decided by the model's own arguments


@dataclass
class Request:
    """What the command line asks for."""

    model: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    preprocess: dict[str, Any] = field(default_factory=dict)
    classes: list[str] | None = None
    overwrite: bool = False


def main(argv: list[str] | None = None) -> int:
    """The command. Returns its exit status."""
    positional, given = cli.split_arguments(argv, __doc__ or "")
    overrides = take_plugins(given)
    if len(positional) != 2:
        raise StvideoError(
            f"python -m stvideo.convert takes a source and a target, got {len(positional)}: {' '.join(positional)}; "
            "example: python -m stvideo.convert weights.pth model.safetensors"
        )
    source, target = positional
    report, files = convert_files(source, target, read_request(overrides))
    print(report.summary())
    print(f"written: {', '.join(map(str, files))}")
    return 0


def read_request(overrides: Sequence[str]) -> Request:
    """Sort ``key=value`` into what is the model's, the preprocessing's and the command's own.

    Raises:
        StvideoError: a value that cannot be read.
    """
    request = Request()
    for text in overrides:
        key, _, raw = text.partition("=")
        try:
            value = yaml.safe_load(raw)
        except yaml.YAMLError:
            raise StvideoError(f"the command line: cannot read the value of {text!r}") from None
        if key == "model":
            request.model = str(value)
        elif key == "overwrite":
            if not isinstance(value, bool):
                raise StvideoError(f"the command line: {text}: expected true or false")
            request.overwrite = value
        elif key == "classes":
            request.classes = read_classes(Path(raw))
        elif key in Preprocessing.names() and key not in OF_THE_MODEL:
            request.preprocess[key] = getattr(load_config(overrides=[f"data.{text}"]).data, key)
        else:
            request.arguments[key] = value
    return request


def read_classes(path: Path) -> list[str]:
    """Class names, one a line; raises `StvideoError` if there are none."""
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise StvideoError(f"classes={path}: cannot be read as text: {' '.join(str(error).split())}") from None
    if not names:
        raise StvideoError(f"classes={path}: the file names no classes")
    return names


def convert(source: str | Path, target: str | Path, request: Request | None = None) -> LoadReport:
    """Write ``source`` as safetensors or ONNX to ``target``, with a model card, and check the result.

    Args:
        source: any file or folder that `stvideo.load_checkpoint` knows; for ONNX also a name of `stvideo.list_models`.
        target: a path that ends in ``.safetensors`` or ``.onnx``.
        request: model, arguments, preprocessing and classes to use instead of those that the source tells.

    Returns:
        What became of the weights.

    Raises:
        StvideoError: the target exists, the source is not a checkpoint, it does not hold every weight of the model, or
            ONNX Runtime computes anything else than the model.
    """
    return convert_files(source, target, request or Request())[0]


def convert_files(source: str | Path, target: str | Path, request: Request) -> tuple[LoadReport, list[Path]]:
    """`convert`, which also says what files it has written."""
    target = Path(target)
    check_target(target, request.overwrite)
    to_onnx = target.suffix == ONNX_SUFFIX
    if to_onnx:
        require("onnx", "onnxscript")
    if to_onnx and str(source) in list_models() and not Path(source).exists():
        model, metadata, report = untrained(str(source), request)
    else:
        model, metadata, report = load_source(source, target, request)
    if len(metadata["classes"]) != model.num_classes:
        raise StvideoError(f"{len(metadata['classes'])} class names for a head of {model.num_classes} classes")
    metadata["source"]["converted_with"] = versions()
    prepare_output(target.parent)
    if to_onnx:
        files = write_onnx(target, model.eval(), metadata)
    else:
        save_model(target, model, metadata)
        compare(target, model)
        files = [target]
    write_atomically(card_path(target), model_card(target, model, metadata))
    return report, [*files, card_path(target)]


def load_source(source: str | Path, target: Path, request: Request) -> tuple[nn.Module, dict[str, Any], LoadReport]:
    """The model in ``source`` with its weights, the metadata to save, and what became of the weights."""
    if not Path(source).exists() and target.suffix == ONNX_SUFFIX:
        raise StvideoError(f"{source}: no such checkpoint, and no model's name{nearest(str(source), list_models())}")
    checkpoint = read_checkpoint(source)
    if resolve_checkpoint(source).resolve() == target.resolve():
        raise StvideoError(f"{target}: source and target are the same file")
    model, metadata = rebuild(checkpoint, request)
    report = copy_weights(model, checkpoint, dict(checkpoint.state))
    check_complete(report, may_lack=r"(?!)")
    if report.unexpected:
        names = ", ".join(report.unexpected[:4]) + (", ..." if len(report.unexpected) > 4 else "")
        logger.warning(
            f"{source}: the model has no place for {len(report.unexpected)} of its weights, left out: {names}"
        )
    metadata["source"] = {
        "file": Path(checkpoint.path).name,
        "sha256": sha256(Path(checkpoint.path)),
        "loading": report.summary().removeprefix(f"{checkpoint.path}: "),
    }
    return model, metadata, report


def untrained(name: str, request: Request) -> tuple[nn.Module, dict[str, Any], LoadReport]:
    """The model called ``name`` with random weights, for measuring speed; as `load_source`."""
    if request.model is not None:
        raise StvideoError(f"model={request.model}: the source, {name}, is a model's name already")
    logger.warning(
        f"{name}: no checkpoint but a model's name, so the weights are random and good for measuring speed only"
    )
    model = create_model(name, **request.arguments)
    metadata = describe({}, model, request)
    metadata["source"] = {"file": None, "loading": "random weights"}
    return model, metadata, LoadReport(name, missing=list(model.state_dict()))


def write_onnx(target: Path, model: nn.Module, metadata: dict[str, Any]) -> list[Path]:
    """Write an ONNX file and print how well ONNX Runtime agrees. Returns the files.

    Raises:
        StvideoError: it does not agree; nothing is left behind then.
    """
    print(f"{target}: tracing the model, then comparing it with ONNX Runtime (some minutes if large)", flush=True)
    described = {"model": model_description(model), **metadata}
    with onnx_files(model, target, described) as files:
        if not is_installed("onnxruntime"):
            logger.warning(f"{target}: not compared, onnxruntime is not installed; pip install 'stvideo[onnx]'")
            return files
        try:
            difference = check_onnx(model, OnnxSession(files[0]))
        except StvideoError as error:
            raise StvideoError(f"{target}: not written: {error}") from None
    if difference is None:
        logger.warning(f"{target}: not compared, the model draws at random in every call")
    else:
        print(f"{target}: ONNX Runtime's logits of random clips are within {difference:.1e} of torch's")
    return files


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
    """Where the model card of ``target`` goes; a model may stand in one folder in both formats."""
    return target.with_suffix(".md" if target.suffix == SUFFIX else ONNX_SUFFIX + ".md")


def rebuild(checkpoint: Checkpoint, request: Request) -> tuple[nn.Module, dict[str, Any]]:
    """The model that the weights are for, and the metadata to save with it.

    Raises:
        StvideoError: no model can be told, or an argument does not fit it.
    """
    known = checkpoint.metadata
    if request.model is None:
        try:
            metadata = dict(known or describe_upstream(checkpoint))
        except StvideoError as error:
            raise StvideoError(f"{checkpoint.path}: cannot tell its model; give model=NAME ({error})") from None
        description = metadata.pop("model", {})
        if "name" not in description:
            raise StvideoError(f"{checkpoint.path}: the file does not say which model it is for; give model=NAME")
        arguments = {**description.get("arguments", {}), **request.arguments}
        model = create_model(description["name"], reduction=description.get("reduction") or None, **arguments)
    else:
        metadata = {key: value for key, value in known.items() if key != "model"}
        model = create_model(request.model, **{**_classes_of_head(checkpoint), **request.arguments})
    return model, describe(metadata, model, request)


def describe(metadata: dict[str, Any], model: nn.Module, request: Request) -> dict[str, Any]:
    """``metadata`` with preprocessing and classes filled in: those of the request, else its own, else the published."""
    num_classes = int(model.num_classes)  # type: ignore[arg-type]
    own: dict[str, Any] = {
        "num_classes": num_classes,
        "num_frames": int(model.num_frames),  # type: ignore[arg-type]
        "img_size": _side(model.img_size),
    }
    if "preprocess" not in metadata:
        metadata["preprocess"] = published_preprocessing(model_description(model).get("name", ""), own).to_dict()
    given = {key: own[key] for key in OF_THE_MODEL if key in request.arguments}
    metadata["preprocess"] = Preprocessing.from_dict(
        {**metadata["preprocess"], **given, **request.preprocess}
    ).to_dict()
    if request.classes:
        metadata.setdefault("versions", versions())  # marks class names that mean something, which evaluation compares
    metadata["classes"] = request.classes or metadata.get("classes") or [f"class {i}" for i in range(num_classes)]
    return metadata


def compare(target: Path, model: nn.Module) -> None:
    """Load ``target`` and raise `StvideoError`, having removed it, unless it holds just the weights of ``model``."""
    again, _ = load_model(target)
    expected, found = model.state_dict(), again.state_dict()
    same = expected.keys() == found.keys() and all(torch.equal(expected[name], found[name]) for name in expected)
    if not same:
        target.unlink()
        raise StvideoError(f"{target}: what was written does not load back as the same weights; it was removed")


def sha256(path: Path) -> str:
    """Checksum of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _classes_of_head(checkpoint: Checkpoint) -> dict[str, int]:
    """``num_classes`` as the file's classification head has them, if there is one."""
    for name in ("head.weight", "head.fc.weight"):
        if name in checkpoint.state:
            return {"num_classes": checkpoint.state[name].shape[0]}
    return {}


def _side(img_size: Any) -> int | list[int]:
    """Height and width as the data section has them: one number for a square."""
    height, width = img_size
    return int(height) if height == width else [int(height), int(width)]


if __name__ == "__main__":
    cli.run(main)
