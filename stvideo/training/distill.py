"""The loss: cross-entropy with label smoothing, plus knowledge distillation from a teacher where one is named."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from stvideo.core.errors import StvideoError
from stvideo.data.clips.preprocessing import CHOICE_OF_FRAMES
from stvideo.models.base import Backbone
from stvideo.settings.config import Config


class TrainingLoss(nn.Module):
    """Cross-entropy, and the divergence from a teacher's softened predictions (Hinton et al., arXiv 1503.02531).

    Args:
        label_smoothing: share of the target spread over all classes.
        teacher: model that sees the same clips; it is never trained.
        weight: factor of the distillation term.
        temperature: both distributions are softened by it; the term is multiplied by its square.
    """

    def __init__(
        self,
        *,
        label_smoothing: float = 0.0,
        teacher: nn.Module | None = None,
        weight: float = 1.0,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        self.weight = weight
        self.temperature = temperature
        self.teacher = teacher.eval().requires_grad_(False) if teacher is not None else None

    def forward(self, logits: Tensor, target: Tensor, clip: Tensor) -> Tensor:
        """Mean loss of a batch.

        Args:
            logits: (B, K) of the student.
            target: (B,) class ids or (B, K) class probabilities.
            clip: (B, 3, T, H, W) what the student saw.
        """
        loss = functional.cross_entropy(logits.float(), target, label_smoothing=self.label_smoothing)
        if self.teacher is None:
            return loss
        with torch.no_grad():
            wanted = functional.log_softmax(self.teacher(clip).float() / self.temperature, dim=1)
        got = functional.log_softmax(logits.float() / self.temperature, dim=1)
        divergence = functional.kl_div(got, wanted, reduction="batchmean", log_target=True)
        return loss + self.weight * self.temperature**2 * divergence


def check_teacher(teacher: Backbone, config: Config, classes: list[str]) -> None:
    """Refuse a teacher that cannot understand the student's clips or that names other classes.

    Raises:
        StvideoError: what differs.
    """
    where = f"train.teacher={config.train.teacher}"
    if teacher.classes != list(classes):
        raise StvideoError(f"{where}: its {len(teacher.classes)} classes are not the {len(classes)} of this data")
    differences = teacher.preprocessing.difference(config.data) if teacher.preprocessing else {}
    for key, (theirs, ours) in differences.items():
        if key not in CHOICE_OF_FRAMES:
            raise StvideoError(
                f"{where}: it was trained with data.{key}={theirs}, this run has {ours}; make them equal"
            )
