"""From a name, or a checkpoint, to a network: `create_model` and `load_model`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from stvideo.core.arguments import keyword_arguments
from stvideo.core.errors import StvideoError, nearest
from stvideo.data.clips.preprocessing import Preprocessing
from stvideo.models.base import Backbone
from stvideo.models.registry import ModelEntry, dense_name, model_entry
from stvideo.reduction.apply import apply_reduction
from stvideo.reduction.base import list_reductions, option_names
from stvideo.settings.plugins import plugins_named
from stvideo.weights.loading import NOTHING, LoadReport, copy_weights, load_checkpoint
from stvideo.weights.reading import Checkpoint, read_checkpoint
from stvideo.weights.upstream import describe_upstream


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    num_frames: int | None = None,
    img_size: int | tuple[int, int] | None = None,
    attention: str | None = None,
    reduction: str | Mapping[str, Mapping[str, Any] | None] | None = None,
    checkpoint: str | Path | None = None,
    **options: Any,
) -> Backbone:
    """Build a model.

    Args:
        name: one of `list_models`.
        num_classes: outputs of the head.
        num_frames: frames per clip for which the time embedding is laid out; other counts work too.
        img_size: pixels for which the positional embedding is laid out; other sizes work too.
        attention: ``divided``, ``joint`` or ``space``, where the model has the choice.
        reduction: a method's name, or ``{method: options}`` for one or several, put in in that order.
        checkpoint: weights to load; the format is found by itself.
        options: any other argument of the model's constructor (``embed_dim``, ``depth``, ``drop_path_rate``, ...) and,
            for a variant, of its reduction.

    Returns:
        The model. ``model.spec`` holds what rebuilds it.

    Raises:
        StvideoError: unknown name or argument, or a value that does not fit.
    """
    entry = model_entry(name)
    given = dict(num_classes=num_classes, num_frames=num_frames, img_size=img_size, attention=attention)
    arguments = {key: value for key, value in given.items() if value is not None} | options
    reductions = _reductions_of(entry, reduction, arguments)
    known = keyword_arguments(entry.constructor)
    for key in arguments:
        if key not in known:
            extra = f" (and {entry.reduction}'s {', '.join(option_names(entry.reduction))})" if entry.reduction else ""
            hint = nearest(key, known)
            raise StvideoError(f"{name}: unknown argument {key!r}{hint}; it takes: {', '.join(sorted(known))}{extra}")
    try:
        model = entry.constructor(**{**entry.arguments, **arguments})
    except StvideoError:
        raise
    except (TypeError, ValueError, RuntimeError, ArithmeticError, LookupError) as error:
        raise StvideoError(f"{name}: {' '.join(str(error).split())}") from error
    for method, method_options in reductions.items():
        apply_reduction(model, method, **(method_options or {}))
    # A variant is recorded as its dense model with a reduction, so that either can be changed alone later.
    model.spec = {"name": name if entry.reduction is None else dense_name(entry), "arguments": arguments}
    if checkpoint is not None:
        load_checkpoint(model, checkpoint)
    return model


def load_model(path: str | Path, **overrides: Any) -> Backbone:
    """Rebuild the model that a checkpoint holds.

    Args:
        path: one of our files or run folders, or an upstream file (TimeSformer, DeiT, EViT, LV-ViT, Swin, ...).
        overrides: arguments of `create_model` to change, e.g. ``reduction``.

    Returns:
        The model, with ``model.classes``, ``model.preprocessing`` and ``model.metadata``; those of an upstream file are
        made from what its shapes tell, and ``preprocessing`` is None where one of our files does not say it.

    Raises:
        StvideoError: not a checkpoint, or no model can be told from it.
    """
    return rebuild(read_checkpoint(path), **overrides)[0]


def rebuild(checkpoint: Checkpoint, **overrides: Any) -> tuple[Backbone, LoadReport]:
    """`load_model` from a file that has been read already; also says what became of the weights."""
    metadata = checkpoint.metadata or describe_upstream(checkpoint)
    description = metadata.get("model", {})
    if "name" not in description:
        raise StvideoError(f"{checkpoint.path}: the file does not say which model it is for")
    arguments = {**description.get("arguments", {}), "reduction": description.get("reduction") or None, **overrides}
    with plugins_named(metadata):
        model = create_model(description["name"], **arguments)
    report = copy_weights(model, checkpoint, may_lack=r"^reductions\." if "reduction" in overrides else NOTHING)
    model.metadata = metadata
    model.classes = [str(name) for name in metadata.get("classes", [])] or default_classes(model.num_classes)
    if len(model.classes) != model.num_classes and "num_classes" not in overrides:
        raise StvideoError(
            f"{checkpoint.path}: it names {len(model.classes)} classes, but its head has {model.num_classes}"
        )
    model.preprocessing = saved_preprocessing(checkpoint.path, model, overrides)
    return model, report


def default_classes(count: int) -> list[str]:
    """Make up names for classes that nobody has named."""
    return [f"class {number}" for number in range(count)]


def saved_preprocessing(path: str, model: Backbone, overrides: Mapping[str, Any] | None = None) -> Preprocessing | None:
    """Take out of ``model.metadata`` how a clip becomes the model's input; None if they do not say.

    Args:
        path: for messages.
        model: whose own size fills in what is not said.
        overrides: arguments that the model was built with instead of the saved ones; the size follows them.
    """
    if "preprocess" not in model.metadata:
        return None
    size: dict[str, Any] = {"num_frames": model.num_frames, "img_size": model.img_size}
    changed = {key: value for key, value in size.items() if key in (overrides or {})}
    try:
        preprocessing = Preprocessing.from_dict({**size, **model.metadata["preprocess"]})
        if "img_size" in changed and preprocessing.test_short_side:
            changed["test_short_side"] = round(min(model.img_size) / preprocessing.test_share)
        return replace(preprocessing, **changed)
    except StvideoError as error:
        raise StvideoError(f"{path}: its description of the preprocessing is wrong: {error}") from None


def _reductions_of(entry: ModelEntry, reduction: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """Collect the reductions to put in, taking a variant's own keywords out of ``arguments``."""
    if isinstance(reduction, str):
        reduction = {reduction: {}}
    if reduction is not None and not isinstance(reduction, Mapping):
        raise StvideoError(f"reduction must be a name or {{method: options}}, not {reduction!r}")
    for method, method_options in (reduction or {}).items():
        if method_options is not None and not isinstance(method_options, Mapping):
            hint = f"known methods: {', '.join(list_reductions())}"
            raise StvideoError(f"reduction {method!r}: its options must be a mapping, not {method_options!r}; {hint}")
    if entry.reduction is None:
        return dict(reduction or {})
    own = {key: arguments.pop(key) for key in option_names(entry.reduction) if key in arguments}
    if reduction:
        raise StvideoError(
            f"{entry.name} is a preset with reduction {entry.reduction!r}; "
            f"give its keywords, or reduction= with the dense {dense_name(entry)!r}, not both"
        )
    return {entry.reduction: {**entry.reduction_options, **own}}
