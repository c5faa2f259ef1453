"""Named parts of a forward pass, so that a benchmark can say where the time goes.

    @part("top-k", reduction=True)
    def select_topk(score, k): ...

Nothing is measured, and a call costs a fraction of a microsecond more, until somebody listens; compiled and exported
models never see it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

Listener = Callable[[str, bool], AbstractContextManager[Any]]
"""Called with a part's name and whether it is a reduction's own; entered and left around every call of it."""

_listener: Listener | None = None


def part(name: str, reduction: bool = False) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: give a function or method a name of its own in the list of where the time goes.

    Args:
        name: what people are shown.
        reduction: it is called for the sake of a reduction only, wherever it is called. What a `Reduction` module
            calls counts as its own in any case.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def named(*args: P.args, **kwargs: P.kwargs) -> R:
            if _listener is None:
                return function(*args, **kwargs)
            with _listener(name, reduction):
                return function(*args, **kwargs)

        return named

    return decorate


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Let ``listener`` know of every named part inside the block."""
    global _listener
    before, _listener = _listener, listener
    try:
        yield
    finally:
        _listener = before
