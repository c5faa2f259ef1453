"""timm's own models in the race: what its users run today is what a reduced model has to beat."""

from __future__ import annotations

from typing import Any

import timm
from torch import Tensor, nn

from stvideo.core.errors import StvideoError, nearest
from stvideo.models.registry import list_models

TIMM = "timm:"


class TimmModel(nn.Module):
    """timm's model behind our interface: clips of one frame, (B, 3, 1, H, W), to logits (B, num_classes)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    @property
    def num_classes(self) -> int:
        return int(self.model.num_classes)  # type: ignore[arg-type]

    def example_shape(self) -> tuple[int, int, int, int, int]:
        """(1, 3, 1, H, W)."""
        config: Any = self.model.pretrained_cfg
        embed = getattr(self.model, "patch_embed", None)
        height, width = getattr(embed, "img_size", None) or config["input_size"][-2:]
        return (1, 3, 1, height, width)

    def forward(self, clip: Tensor) -> Tensor:
        return self.model(clip.squeeze(2))  # type: ignore[no-any-return]


def build_timm(name: str, arguments: dict[str, Any]) -> TimmModel:
    """timm's model ``name`` with random weights.

    Args:
        arguments: for timm's constructor; ``num_frames`` must be 1.

    Raises:
        StvideoError: timm has no such model, it is one of ours, or an argument does not fit it.
    """
    arguments = dict(arguments)
    ours = set(list_models())
    known = [other for other in timm.list_models() if other not in ours or not _is_ours(other)]
    if name not in known:
        raise StvideoError(f"{TIMM}{name}: timm {timm.__version__} has no such model{nearest(name, known)}")
    if arguments.pop("num_frames", 1) != 1:
        raise StvideoError(f"{TIMM}{name}: timm's models take images, so num_frames must be 1")
    try:
        return TimmModel(timm.create_model(name, pretrained=False, **arguments))
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise StvideoError(f"{TIMM}{name}: {' '.join(str(error).split())[:200]}") from None


def _is_ours(name: str) -> bool:
    """Whether timm knows the name from us only."""
    return timm.models.model_entrypoint(name).__module__.startswith("stvideo")
