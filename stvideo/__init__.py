"""stvideo: efficient video transformers by semantic tokens and class-attention token reorganization."""

import stvideo.models.presets
import stvideo.models.swin.presets
import stvideo.reduction  # noqa: F401  (importing registers the methods and the model names)
from stvideo.core.errors import StvideoError
from stvideo.core.macs import count_macs
from stvideo.core.tokens import Tokens, TokenTrace
from stvideo.models.registry import list_models
from stvideo.reduction.base import apply_reduction, list_reductions, remove_reduction
from stvideo.reduction.budget import set_budget
from stvideo.weights.factory import create_model, load_model, register_with_timm
from stvideo.weights.from_timm import from_timm
from stvideo.weights.reading import LoadReport, load_checkpoint

register_with_timm()

__version__ = "0.1.0"

__all__ = [
    "LoadReport",
    "StvideoError",
    "TokenTrace",
    "Tokens",
    "apply_reduction",
    "count_macs",
    "create_model",
    "from_timm",
    "list_models",
    "list_reductions",
    "load_checkpoint",
    "load_model",
    "remove_reduction",
    "set_budget",
]
