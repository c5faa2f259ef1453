"""What a token reduction is, and how one is put into a model.

A reduction is a small module in a declared *slot* of a ViT-like model:

    mid      between the attention and the feed-forward part of a block, for every block in ``layers``
    replace  takes the place of the consecutive blocks in ``layers`` (it may use their weights)
    after    after a block

To add a method, write one file in this package with a class decorated by ``@register("name")``; it is found by
itself, by `stvideo.list_reductions`, by the configuration files and by the tests.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from stvideo.core.errors import StvideoError, nearest

Slot = Literal["mid", "replace", "after"]


@dataclass(frozen=True)
class Host:
    """What a reduction may know of the model that it is put into."""

    embed_dim: int
    depth: int
    num_heads: int
    attention: str  # divided | joint | space
    num_frames: int
    grid: tuple[int, int]  # patch rows and columns at the constructed size
    num_prefix: int  # class tokens
    norm_eps: float


@dataclass
class AttentionInfo:
    """By-products of a block's spatial attention, computed only for the reductions that ask for them."""

    class_attention: Tensor | None = None
    """(B, F, N) float32: attention of the class token to every patch token of its group, averaged over heads."""
    keys: Tensor | None = None
    """(B, F, N, C): keys of the patch tokens."""


class Reducible(nn.Module):
    """A model as reductions know it; every backbone is one.

    Attributes:
        reductions: `Reduction` by name, in the order in which they act.
    """

    reductions: nn.ModuleDict

    def reduction_host(self) -> Host:
        """Describe the model to reductions; raises `StvideoError` if it takes none."""
        raise NotImplementedError

    def example_shape(self) -> tuple[int, int, int, int, int]:
        """Shape of one clip at the constructed size: (1, 3, T, H, W)."""
        raise NotImplementedError

    def active_reductions(self) -> list[Reduction]:
        """List the reductions in the order in which they act in a block."""
        return [reduction for reduction in self.reductions.values() if isinstance(reduction, Reduction)]


class Reduction(nn.Module):
    """Base of every method. Sub-classes set the class attributes and implement ``forward``.

    ``forward(layer, tokens, info) -> Tokens`` for ``mid`` and ``after``,
    ``forward(tokens, blocks) -> Tokens`` for ``replace``.
    """

    name: ClassVar[str]
    slot: ClassVar[Slot] = "mid"
    needs: ClassVar[frozenset[str]] = frozenset()  # of "class_attention", "keys"
    recovers: ClassVar[bool] = False  # whether every patch is its own token again afterwards
    budget_options: ClassVar[tuple[str, ...]] = ()  # ways to say how much to keep that the same weights serve

    def __init__(self, host: Host, *, layers: Sequence[int] | int) -> None:
        super().__init__()
        self.layers = check_layers(self.name, layers, host.depth)
        self.options: dict[str, Any] = {}  # the keywords that rebuild it, filled in by `build_reduction`
        self.budget_levels: int | None = None  # training budgets snap to so many where each costs a compilation

    def span_from(self, layer: int) -> int:
        """How many consecutive blocks, from ``layer`` on, this reduction stands for."""
        last = layer
        while last + 1 in self.layers:
            last += 1
        return last - layer + 1

    @classmethod
    def resolve_options(cls, model: nn.Module, options: dict[str, Any]) -> dict[str, Any]:
        """Options as the constructor takes them; a method may work out some of them from the whole model here."""
        return options

    def set_epoch(self, epoch: float) -> None:
        """Tell the method how far training is (in epochs, fractional); called before every optimiser step."""

    def draw_budget(self, generator: torch.Generator) -> None:
        """Any-budget training: draw what the coming step keeps; called before every optimiser step."""

    def training_budgets(self, count: int) -> list[dict[str, Any]]:
        """Budgets spread over the range that `draw_budget` draws from, the dearest last; empty where it draws none."""
        return []

    def with_budget(self, budget: dict[str, Any]) -> dict[str, Any]:
        """``options`` with another budget; the ways to say it exclude each other, so the old one goes."""
        return {key: value for key, value in self.options.items() if key not in self.budget_options} | budget

    def copy_budget(self, other: Reduction) -> None:
        """Take over the budget of ``other``, which was built with `with_budget`."""

    def state_summary(self) -> dict[str, float]:
        """Numbers worth logging, e.g. the present keep rate."""
        return {}


_REGISTRY: dict[str, type[Reduction]] = {}


def register(name: str) -> Callable[[type[Reduction]], type[Reduction]]:
    """Class decorator: make a `Reduction` known under ``name``."""

    def decorate(cls: type[Reduction]) -> type[Reduction]:
        if name in _REGISTRY:
            raise RuntimeError(f"a reduction called {name!r} is registered already")
        cls.name = name
        _REGISTRY[name] = cls
        return cls

    return decorate


def list_reductions() -> list[str]:
    """Names of all reduction methods."""
    return sorted(_REGISTRY)


def reduction_class(name: str) -> type[Reduction]:
    """The class registered as ``name``; raises `StvideoError` with the list of names."""
    if name not in _REGISTRY:
        raise StvideoError(
            f"unknown reduction {name!r}{nearest(str(name), _REGISTRY)}; there are: {', '.join(list_reductions())}"
        )
    return _REGISTRY[name]


def option_names(name: str) -> list[str]:
    """The keywords that reduction ``name`` takes."""
    parameters = inspect.signature(reduction_class(name).__init__).parameters
    return [key for key in parameters if key not in ("self", "host")]


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Raise `StvideoError` for an option that reduction ``name`` does not take, naming the nearest one."""
    known = option_names(name)
    for key in options:
        if key not in known:
            raise StvideoError(
                f"{name}: unknown option {key!r}{nearest(str(key), known)}; it takes: {', '.join(known)}"
            )


def build_reduction(name: str, host: Host, options: Mapping[str, Any]) -> Reduction:
    """Construct reduction ``name`` for ``host``.

    Raises:
        StvideoError: unknown method or option, or a value that does not fit the model.
    """
    cls = reduction_class(name)
    check_options(name, options)
    reduction = cls(host, **copy.deepcopy(dict(options)))
    reduction.options = copy.deepcopy(dict(options))
    return reduction


def apply_reduction(model: nn.Module, name: str, **options: Any) -> nn.Module:
    """Put reduction ``name`` into ``model`` (in place); replaces one of the same name.

    Args:
        model: a model with reduction slots (ViT-like).
        name: one of `list_reductions`.
        options: the method's own keywords; see its class.

    Returns:
        The model.

    Raises:
        StvideoError: the model has no slots, the method or an option is unknown, or it does not fit.
    """
    if not isinstance(model, Reducible):
        raise StvideoError(f"{type(model).__name__} takes no token reductions: it is none of stvideo's models")
    host = model.reduction_host()
    check_options(name, options)
    reduction = build_reduction(name, host, reduction_class(name).resolve_options(model, options))
    _check_slots_free(reduction, [other for other in model.active_reductions() if other.name != name])
    reference = next(model.parameters())
    reduction.to(device=reference.device, dtype=reference.dtype)
    reduction.train(model.training)
    model.reductions[name] = reduction
    return model


def remove_reduction(model: nn.Module) -> nn.Module:
    """Make ``model`` dense again (in place), with the present values of the weights it shares. Returns the model."""
    if isinstance(model, Reducible):
        model.reductions.clear()
    return model


def reduction_options(model: nn.Module) -> dict[str, dict[str, Any]]:
    """``{method: options}`` of the reductions that ``model`` has now, in order; what `stvideo.create_model` takes."""
    reductions = model.active_reductions() if isinstance(model, Reducible) else []
    return {reduction.name: dict(reduction.options) for reduction in reductions}


def check_layers(name: str, layers: Sequence[int] | int, depth: int) -> tuple[int, ...]:
    """``layers`` as a rising tuple of block numbers inside the network; raises `StvideoError` otherwise."""
    try:
        numbers = (layers,) if isinstance(layers, int) else tuple(layers)
    except TypeError:
        numbers = ()
    if not numbers or not all(isinstance(n, int) and not isinstance(n, bool) for n in numbers):
        raise StvideoError(f"{name}: layers must be block numbers such as [3, 6, 9], not {layers!r}")
    if len(set(numbers)) != len(numbers):
        raise StvideoError(f"{name}: layers {list(numbers)} names a block twice")
    for number in numbers:
        if not 0 <= number < depth:
            raise StvideoError(f"{name}: layer {number} is outside the model's {depth} blocks (0 to {depth - 1})")
    return tuple(sorted(numbers))


def spread_layers(depth: int) -> tuple[int, ...]:
    """The default layers of class-attention reorganization: 3, 6, 9 of 12 and 4, 8, 12 of 16 (EViT, section 4.1)."""
    third = max(depth // 4, 1)
    return tuple(n for n in (third, 2 * third, 3 * third) if n < depth) or (0,)


def check_unit(name: str, key: str, value: Any) -> float:
    """``value`` as a float in (0, 1]; raises `StvideoError` otherwise."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
        raise StvideoError(f"{name}: {key} must be above 0 and at most 1, not {value!r}")
    return float(value)


def _check_slots_free(new: Reduction, others: Sequence[Reduction]) -> None:
    for other in others:
        clash = sorted(set(new.layers) & set(other.layers))
        if clash and (new.slot == other.slot or "replace" in (new.slot, other.slot)):
            raise StvideoError(f"{new.name}: block {clash[0]} is taken by {other.name!r}; give it other layers")
