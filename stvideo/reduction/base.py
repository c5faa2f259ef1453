"""The base of every token reduction, and how one is put into a model.

A reduction is a small module that overrides the hooks it needs; docs/extending.md has an example of each kind:

    embed(tokens, clip)             after the embedding, with the pixels
    before(layer, tokens)           at the input of each block in ``layers``
    queries(layer, tokens, info)    inside the attention of those blocks: the tokens that ask, fewer than the keys
    mid(layer, tokens, info)        between their attention and their feed-forward part
    replace(layer, tokens, blocks)  in place of each run of consecutive blocks in ``layers``
    finish(tokens)                  after the last block, before the head
    losses(outcome)                 terms of the training loss, logged by name
    calibrate(model, clips)         once, before use, on a few clips

To add a method, write one file with a class decorated by ``@register_reduction("name")``, in this package (where it
is found by itself) or in any module named in ``plugins:``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from stvideo.core.arguments import keyword_arguments
from stvideo.core.errors import StvideoError, nearest
from stvideo.core.tokens import Tokens
from stvideo.reduction.checks import between, check_layers, check_range, snap
from stvideo.reduction.hooks import AttentionInfo, Budget, Host, Need, Outcome

Attributes = list[dict[str, Any]]
"""Plain attributes of a reduction and of the reductions inside it: all that a budget changes."""

HOOKS = ("embed", "before", "queries", "mid", "replace", "finish", "losses", "calibrate")
IN_BLOCKS = frozenset(("before", "queries", "mid", "replace"))


class Reduction(nn.Module):
    """Base of every method: sub-classes declare class attributes and override hooks.

    Nothing that belongs to a clip may be kept on the module: state travels on the tokens (``size``, ``valid``,
    ``policy``, ``per_token``, ``per_clip``). Plain attributes set by the constructor say how much is kept, and change
    when the budget does; weights and buffers never do.

    Args:
        host: the model.
        layers: blocks in which the method acts; none for a method that only overrides ``embed``.
    """

    name: ClassVar[str]
    hooks: ClassVar[frozenset[str]] = frozenset()  # those that the class overrides, found by itself
    needs: frozenset[Need] = frozenset()  # fields of `AttentionInfo` that ``queries`` and ``mid`` read
    recovers: ClassVar[bool] = False  # whether every patch is its own token again afterwards
    is_control: ClassVar[bool] = False  # whether it is what other methods have to beat at equal cost
    budgets: ClassVar[Mapping[str, Budget]] = {}
    needs_calibration: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.hooks = frozenset(name for name in HOOKS if getattr(cls, name) is not getattr(Reduction, name))

    def __init__(self, host: Host, *, layers: Sequence[int] | int = ()) -> None:
        super().__init__()
        self.host = host
        self.layers = check_layers(self.name, layers, host.depth, may_be_empty=not self.hooks & IN_BLOCKS)
        self.options: dict[str, Any] = {}  # the keywords that rebuild it, filled in by `build_reduction`
        self.budget_range: dict[str, Any] = {}  # any-budget training: {option: (lowest, highest)}
        self.budget_levels: int | None = None  # training budgets snap to so many where each costs a compilation
        self._final: Attributes | None = None  # plain attributes of the final budget while training has others

    # ---- hooks ----

    def embed(self, tokens: Tokens, clip: Tensor) -> Tokens:
        """Change the embedded tokens. clip (B, 3, T, H, W) is what the model was given."""
        raise NotImplementedError

    def before(self, layer: int, tokens: Tokens) -> Tokens:
        """Change the tokens at the input of block ``layer``."""
        raise NotImplementedError

    def queries(self, layer: int, tokens: Tokens, info: AttentionInfo) -> Tokens:
        """Return the tokens that attend to all ``tokens`` in block ``layer``; they alone go on."""
        raise NotImplementedError

    def mid(self, layer: int, tokens: Tokens, info: AttentionInfo) -> Tokens:
        """Change the tokens after the attention of block ``layer`` and its residual."""
        raise NotImplementedError

    def replace(self, layer: int, tokens: Tokens, blocks: Sequence[Any]) -> Tokens:
        """Do the work of ``blocks``, a run of consecutive ones from number ``layer`` on."""
        raise NotImplementedError

    def finish(self, tokens: Tokens) -> Tokens:
        """Change what the head reads, after the last block."""
        raise NotImplementedError

    def losses(self, outcome: Outcome) -> dict[str, Tensor]:
        """Return terms of the training loss by name, each a scalar; they are added up as they are."""
        raise NotImplementedError

    def calibrate(self, model: nn.Module, clips: Iterable[Tensor]) -> None:
        """Look at clips (B, 3, T, H, W) before use and keep what was learned in buffers."""
        raise NotImplementedError

    def forward(self, hook: str, *args: Any) -> Any:
        """Call a hook by its name; the model calls them all through here, so that module hooks of torch see them."""
        return getattr(self, hook)(*args)

    # ---- structure ----

    def span_from(self, layer: int) -> int:
        """Count the consecutive blocks in ``layers`` from ``layer`` on."""
        last = layer
        while last + 1 in self.layers:
            last += 1
        return last - layer + 1

    @classmethod
    def resolve_options(cls, model: Reducible, options: dict[str, Any]) -> dict[str, Any]:
        """Work out options from the whole model; returns those that the constructor takes."""
        return options

    @classmethod
    def example(cls, host: Host) -> dict[str, Any]:
        """Return options with which the method reduces a small model: for tests and trials of every method."""
        for option, budget in cls.budgets.items():
            if budget.kind == "share":
                return {option: 0.5}
            if budget.kind == "count":
                return {option: max(1, host.grid[0] * host.grid[1] // 4)}
        return {}

    # ---- budgets ----

    def with_budget(self, budget: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``options`` with another budget; the ways to say it exclude each other, so the old one goes."""
        return {key: value for key, value in self.options.items() if key not in self.budgets} | dict(budget)

    def attributes_for(self, options: Mapping[str, Any]) -> Attributes:
        """Return the plain attributes of a reduction built with ``options``; raises `StvideoError` for bad ones."""
        with torch.device("meta"):
            return build_reduction(self.name, self.host, options)._plain_attributes()

    def use_budget(self, options: Mapping[str, Any], attributes: Attributes) -> None:
        """Keep as much as a reduction built with ``options``, whose `attributes_for` these are, from now on."""
        self._put_on(attributes)
        self._final = None
        self.options = copy.deepcopy(dict(options))

    def train_with(self, budget: Mapping[str, Any]) -> None:
        """Keep as much as ``budget`` says while in training mode; evaluation keeps its own."""
        if self.training:
            attributes = self.attributes_for(self.with_budget(budget))
            self._final = self._final or self._plain_attributes()
            self._put_on(attributes)

    def train(self, mode: bool = True) -> Reduction:
        """Switch mode; evaluation goes back to the final budget. Training waits for the next draw or epoch."""
        super().train(mode)
        if not mode and self._final is not None:
            self._put_on(self._final)
            self._final = None
        return self

    @property
    def has_schedule(self) -> bool:
        """Whether the budget of training follows the epoch, so that it cannot be drawn as well."""
        return False

    def set_epoch(self, epoch: float) -> None:
        """Follow a schedule, given the epochs trained so far (fractional); called before every optimiser step."""

    def draw_budget(self, generator: torch.Generator) -> None:
        """Draw the budget of the coming step from ``budget_range`` (any-budget training); called before every step."""
        drawn = {}
        for option, (low, high) in self.budget_range.items():
            share = torch.rand((), generator=generator, dtype=torch.float64).item()
            drawn[option] = between(low, high, snap(share, self.budget_levels), self.budgets[option].kind)
        if drawn:
            self.train_with(drawn)

    def training_budgets(self, count: int) -> list[dict[str, Any]]:
        """List budgets spread over what `draw_budget` draws from, the dearest last; empty where it draws none."""
        spread: list[dict[str, Any]] = []
        for option, (low, high) in self.budget_range.items():
            shares = [i / max(count - 1, 1) for i in range(count)]
            values = [between(low, high, share, self.budgets[option].kind) for share in shares]
            spread += [{option: round(value, 6)} for value in dict.fromkeys(values)]
        return spread

    def state_summary(self) -> dict[str, float]:
        """Return numbers worth logging, e.g. the present keep rate."""
        return {}

    def _plain_attributes(self) -> Attributes:
        """Collect everything but weights, buffers and sub-modules, of this method and of the methods inside it."""
        return [
            {key: value for key, value in vars(part).items() if key not in _BOOKKEEPING}
            for part in self.modules()
            if isinstance(part, Reduction)
        ]

    def _put_on(self, attributes: Attributes) -> None:
        parts = [part for part in self.modules() if isinstance(part, Reduction)]
        for part, values in zip(parts, attributes, strict=True):
            vars(part).update(values)


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
        """Return the shape of one clip at the constructed size: (1, 3, T, H, W)."""
        raise NotImplementedError

    def active_reductions(self) -> list[Reduction]:
        """List the reductions in the order in which they act in a block."""
        return [reduction for reduction in self.reductions.values() if isinstance(reduction, Reduction)]


_BOOKKEEPING = frozenset((*vars(nn.Module()), "options", "budget_levels", "_final"))

_REGISTRY: dict[str, type[Reduction]] = {}


def register_reduction(name: str) -> Callable[[type[Reduction]], type[Reduction]]:
    """Register a `Reduction` class under ``name`` (a decorator).

    Raises:
        StvideoError: another method has this name.
    """

    def decorate(cls: type[Reduction]) -> type[Reduction]:
        if name in _REGISTRY and _REGISTRY[name].__qualname__ != cls.__qualname__:
            raise StvideoError(f"a reduction called {name!r} exists already; give yours another name")
        cls.name = name
        _REGISTRY[name] = cls
        return cls

    return decorate


def list_reductions() -> list[str]:
    """List the names of all reduction methods."""
    return sorted(_REGISTRY)


def reduction_class(name: str) -> type[Reduction]:
    """Return the class registered as ``name``; raises `StvideoError` with the list of names."""
    if name not in _REGISTRY:
        raise StvideoError(
            f"unknown reduction {name!r}{nearest(str(name), _REGISTRY)}; there are: {', '.join(list_reductions())} "
            "(one of your own comes with plugins=[MODULE])"
        )
    return _REGISTRY[name]


def option_names(name: str) -> list[str]:
    """List the keywords that reduction ``name`` takes, ranges of its budgets included."""
    cls = reduction_class(name)
    ranges = [f"{option}_range" for option, budget in cls.budgets.items() if budget.kind != "grid"]
    return list(dict.fromkeys((*keyword_arguments(cls), *ranges)))


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

    ``OPTION_range=[low, high]`` beside any budget of the method is any-budget training: every step draws one.

    Raises:
        StvideoError: unknown method or option, or a value that does not fit the model.
    """
    cls = reduction_class(name)
    check_options(name, options)
    given = copy.deepcopy(dict(options))
    ranges = {option: given.pop(f"{option}_range", None) for option in cls.budgets}
    ranges = {option: bounds for option, bounds in ranges.items() if bounds is not None}
    try:
        reduction = cls(host, **given)
    except TypeError as error:
        raise StvideoError(f"{name}: {' '.join(str(error).split())[:200]}") from None
    reduction.options = copy.deepcopy(dict(options))
    if ranges and reduction.has_schedule:
        raise StvideoError(
            f"{name}: {next(iter(ranges))}_range draws a budget for every step; give no schedule beside it"
        )
    reduction.budget_range = {
        option: check_range(name, option, bounds, cls.budgets[option].kind) for option, bounds in ranges.items()
    }
    return reduction
