"""Names of models: an entry is a constructor with default arguments, and a *variant* has a reduction on top."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from stvideo.core.errors import StvideoError, nearest
from stvideo.models.base import Backbone


@dataclass(frozen=True)
class ModelEntry:
    """A model name and how to build it.

    Attributes:
        name: e.g. ``timesformer_base_patch16_224``.
        constructor: the class.
        arguments: its default keyword arguments.
        reduction: method of a variant, None for a dense model. A variant takes its keywords beside the model's.
        reduction_options: that method's default options.
    """

    name: str
    constructor: Callable[..., Backbone]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    reduction: str | None = None
    reduction_options: Mapping[str, Any] = field(default_factory=dict)


_REGISTRY: dict[str, ModelEntry] = {}


def register_model(entry: ModelEntry) -> None:
    """Make ``entry`` known to `stvideo.create_model`; its module may be imported again.

    Raises:
        StvideoError: another model has this name.
    """
    if entry.name in _REGISTRY and _REGISTRY[entry.name].constructor.__qualname__ != entry.constructor.__qualname__:
        raise StvideoError(f"a model called {entry.name!r} exists already; give yours another name")
    _REGISTRY[entry.name] = entry


def list_models() -> list[str]:
    """List the names that `create_model` knows."""
    return sorted(_REGISTRY)


def model_entry(name: str) -> ModelEntry:
    """Return the entry called ``name``; raises `StvideoError` with the nearest name and the list."""
    if name not in _REGISTRY:
        raise StvideoError(
            f"unknown model {name!r}{nearest(str(name), _REGISTRY)}; there are: {', '.join(list_models())} "
            "(one of your own comes with plugins=[MODULE])"
        )
    return _REGISTRY[name]


def dense_name(entry: ModelEntry) -> str:
    """Return the name of the dense model that a variant is built on."""
    built = entry.constructor, dict(entry.arguments)
    dense = (e.name for e in _REGISTRY.values() if e.reduction is None and (e.constructor, dict(e.arguments)) == built)
    return next(dense, entry.name)
