"""Keyword arguments of constructors."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def keyword_arguments(constructor: Callable[..., Any]) -> list[str]:
    """List the keyword-only arguments of a class, those that it passes on to its bases by ``**options`` included."""
    names: dict[str, None] = {}
    for cls in inspect.getmro(constructor) if inspect.isclass(constructor) else (constructor,):
        if inspect.isclass(cls) and "__init__" not in vars(cls):
            continue
        parameters = inspect.signature(cls).parameters.values()
        names |= {p.name: None for p in parameters if p.kind is p.KEYWORD_ONLY}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return list(names)
