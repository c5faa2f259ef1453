"""timm's own models behind our interface: a reduced model has to beat them as timm runs them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from stvideo.core.errors import StvideoError, nearest
from stvideo.models.base import Backbone
from stvideo.reduction.base import Host

PREFIX = "timm:"


class TimmModel(Backbone):
    """A model of timm on clips of one frame, (B, 3, 1, H, W), to logits (B, num_classes).

    Args:
        name: timm's, without the prefix; its weights are random.
        arguments: for timm's constructor; ``num_frames`` must be 1.

    Raises:
        StvideoError: timm has no such model, it is one of ours, or an argument does not fit it.
    """

    def __init__(self, name: str, arguments: dict[str, Any]) -> None:
        import timm

        arguments = dict(arguments)
        known = [
            other
            for other in timm.list_models()
            if not timm.models.model_entrypoint(other).__module__.startswith("stvideo")
        ]
        if name not in known:
            raise StvideoError(f"{PREFIX}{name}: timm {timm.__version__} has no such model{nearest(name, known)}")
        if arguments.pop("num_frames", 1) != 1:
            raise StvideoError(f"{PREFIX}{name}: timm's models take images, so num_frames must be 1")
        try:
            model: Any = timm.create_model(name, pretrained=False, **arguments)
        except (TypeError, ValueError, AssertionError, RuntimeError) as error:
            raise StvideoError(f"{PREFIX}{name}: {' '.join(str(error).split())[:200]}") from None
        size = getattr(getattr(model, "patch_embed", None), "img_size", None) or model.pretrained_cfg["input_size"][-2:]
        super().__init__(
            num_classes=model.num_classes, num_frames=1, img_size=tuple(size), embed_dim=model.num_features
        )
        self.model, self.name = model, name

    def reduction_host(self) -> Host:
        raise StvideoError(f"{PREFIX}{self.name}: timm's model takes no reductions; compare it with ours of that name")

    def forward(self, clip: Tensor, return_trace: bool = False, return_tokens: bool = False) -> Any:
        return self.model(clip.squeeze(2))
