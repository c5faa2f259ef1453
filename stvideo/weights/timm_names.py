"""Our model names in ``timm.create_model``, without importing timm for those who do not use it."""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from stvideo.core.errors import StvideoError

TIMM_MODELS = "timm.models"


def register_with_timm() -> None:
    """Make every name known to ``timm.create_model``: now if timm is imported, else as soon as somebody imports it."""
    if TIMM_MODELS in sys.modules:
        _register(sys.modules[TIMM_MODELS])
    else:
        sys.meta_path.insert(0, _WhenTimmIsImported())


class _WhenTimmIsImported(importlib.abc.MetaPathFinder):
    """Register our models at the end of the import of ``timm.models``, which itself goes its usual way."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != TIMM_MODELS:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader
            run = loader.exec_module

            def run_and_register(module: ModuleType) -> None:
                run(module)
                _register(module)

            loader.exec_module = run_and_register
        return spec


def _register(timm_models: Any) -> None:
    """Register our names with timm; names that timm has already stay timm's."""
    from stvideo.models.registry import list_models

    for name in list_models():
        if not timm_models.is_model(name):
            timm_models.register_model(_entrypoint(name))


def _entrypoint(name: str) -> Callable[..., Any]:
    def entrypoint(pretrained: bool = False, **options: Any) -> Any:
        from stvideo.weights.factory import create_model

        if pretrained:
            raise StvideoError(
                f"{name}: no pretrained weights are hosted; give checkpoint=PATH to stvideo.create_model"
            )
        for key in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):
            options.pop(key, None)
        return create_model(name, **options)

    entrypoint.__name__ = name
    return entrypoint
