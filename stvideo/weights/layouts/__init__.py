"""Key tables of upstream files: one module for each layout, found by themselves.

A module has

- ``matches(state) -> bool``: whether the names of a state dict are this layout's;
- ``convert(state) -> state``: the same weights in our names;
- ``MODELS``: pattern of the models that files of this layout may be for;
- ``arguments(state) -> dict``: what the shapes tell of such a model's constructor arguments, besides ``num_classes``.
"""

import importlib
import pkgutil
from types import ModuleType

from torch import Tensor

_LAYOUTS = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]


def find_layout(state: dict[str, Tensor]) -> ModuleType | None:
    """Return the first layout that has these names, None if none has."""
    return next((layout for layout in _LAYOUTS if layout.matches(state)), None)


def convert_layout(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights in our names; those of no known layout keep theirs."""
    layout = find_layout(state)
    return layout.convert(state) if layout else state
