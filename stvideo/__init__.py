"""stvideo: efficient video transformers by semantic tokens and class-attention token reorganization."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from stvideo.core.interrupts import catch_early
from stvideo.weights.timm_names import register_with_timm

if TYPE_CHECKING:
    from stvideo.core.errors import StvideoError as StvideoError
    from stvideo.core.macs import count_macs as count_macs
    from stvideo.core.tokens import Tokens as Tokens
    from stvideo.core.trace import TokenTrace as TokenTrace
    from stvideo.models.registry import ModelEntry as ModelEntry
    from stvideo.models.registry import list_models as list_models
    from stvideo.models.registry import register_model as register_model
    from stvideo.reduction.apply import apply_reduction as apply_reduction
    from stvideo.reduction.apply import remove_reduction as remove_reduction
    from stvideo.reduction.base import Reduction as Reduction
    from stvideo.reduction.base import list_reductions as list_reductions
    from stvideo.reduction.base import register_reduction as register_reduction
    from stvideo.reduction.budget import set_budget as set_budget
    from stvideo.reduction.hooks import AttentionInfo as AttentionInfo
    from stvideo.reduction.hooks import Budget as Budget
    from stvideo.reduction.hooks import Host as Host
    from stvideo.reduction.hooks import Outcome as Outcome
    from stvideo.reduction.keep_or_drop import KeepOrDrop as KeepOrDrop
    from stvideo.weights.factory import create_model as create_model
    from stvideo.weights.factory import load_model as load_model
    from stvideo.weights.from_timm import from_timm as from_timm
    from stvideo.weights.loading import LoadReport as LoadReport
    from stvideo.weights.loading import load_checkpoint as load_checkpoint

__version__ = "0.1.0"

# Where each public name is defined; its module is imported when the name is first used.
_MODULES = {
    "AttentionInfo": "reduction.hooks",
    "Budget": "reduction.hooks",
    "Host": "reduction.hooks",
    "KeepOrDrop": "reduction.keep_or_drop",
    "LoadReport": "weights.loading",
    "ModelEntry": "models.registry",
    "Outcome": "reduction.hooks",
    "Reduction": "reduction.base",
    "StvideoError": "core.errors",
    "TokenTrace": "core.trace",
    "Tokens": "core.tokens",
    "apply_reduction": "reduction.apply",
    "count_macs": "core.macs",
    "create_model": "weights.factory",
    "from_timm": "weights.from_timm",
    "list_models": "models.registry",
    "list_reductions": "reduction.base",
    "load_checkpoint": "weights.loading",
    "load_model": "weights.factory",
    "register_model": "models.registry",
    "register_reduction": "reduction.base",
    "remove_reduction": "reduction.apply",
    "set_budget": "reduction.budget",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'stvideo' has no attribute {name!r}")
    value = getattr(import_module(f"stvideo.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})


catch_early()
register_with_timm()
