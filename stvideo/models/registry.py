"""Model names and what they stand for.

An entry is a constructor with default arguments. A *variant* such as ``evit_timesformer_base_patch16_224`` is an entry
with a reduction on top; its extra keywords are that reduction's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from stvideo.core.errors import StvideoError, nearest
from stvideo.models.base import Backbone


@dataclass(frozen=True)
class ModelEntry:
    """What a model name stands for.

    Attributes:
        name: e.g. ``timesformer_base_patch16_224``.
        constructor: the class.
        arguments: its default keyword arguments.
        reduction: method of a variant, None for a dense model.
        reduction_options: that method's default options.
    """

    name: str
    constructor: Callable[..., Backbone]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    reduction: str | None = None
    reduction_options: Mapping[str, Any] = field(default_factory=dict)


_REGISTRY: dict[str, ModelEntry] = {}


def register_model(entry: ModelEntry) -> None:
    """Make ``entry`` known to `stvideo.create_model`."""
    if entry.name in _REGISTRY:
        raise RuntimeError(f"a model called {entry.name!r} is registered already")
    _REGISTRY[entry.name] = entry


def list_models() -> list[str]:
    """Names that `create_model` knows."""
    return sorted(_REGISTRY)


def model_entry(name: str) -> ModelEntry:
    """The entry called ``name``; raises `StvideoError` with the nearest name and the list."""
    if name not in _REGISTRY:
        raise StvideoError(
            f"unknown model {name!r}{nearest(str(name), _REGISTRY)}; there are: {', '.join(list_models())}"
        )
    return _REGISTRY[name]


def dense_name(entry: ModelEntry) -> str:
    """Name of the dense model that a variant is built on."""
    for other in _REGISTRY.values():
        if (
            other.reduction is None
            and other.constructor is entry.constructor
            and dict(other.arguments) == dict(entry.arguments)
        ):
            return other.name
    return entry.name
