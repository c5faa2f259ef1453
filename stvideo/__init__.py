"""stvideo: efficient video transformers by semantic tokens and class-attention token reorganization."""

import stvideo.models.presets
import stvideo.models.swin_presets
import stvideo.reduction  # noqa: F401  (importing registers the methods and the model names)
from stvideo.errors import StvideoError
from stvideo.macs import count_macs
from stvideo.models.checkpoints import LoadReport, load_checkpoint
from stvideo.models.factory import create_model, load_model, register_with_timm
from stvideo.models.from_timm import from_timm
from stvideo.models.registry import list_models
from stvideo.reduction.base import apply_reduction, list_reductions, remove_reduction
from stvideo.reduction.budget import set_budget
from stvideo.tokens import Tokens, TokenTrace

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
