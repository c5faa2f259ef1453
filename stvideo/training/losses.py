"""The loss: cross-entropy with label smoothing, distillation from a teacher, and the terms that reductions add."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from stvideo.core.errors import StvideoError
from stvideo.core.tokens import Tokens
from stvideo.data.clips.preprocessing import CHOICE_OF_FRAMES
from stvideo.models.base import Backbone
from stvideo.reduction.apply import has_losses, reduction_losses
from stvideo.reduction.hooks import Outcome
from stvideo.settings.config import Config


class TrainingLoss:
    """Cross-entropy, the divergence from a teacher's softened predictions (Hinton et al., arXiv 1503.02531), and the
    terms of the model's reductions.

    Args:
        model: the student, whose reductions may add terms.
        label_smoothing: share of the target spread over all classes.
        teacher: model that sees the same clips; it is never trained.
        weight: factor of the distillation term.
        temperature: both distributions are softened by it; the term is multiplied by its square.

    Attributes:
        needs_tokens: whether the model has to return its tokens beside the logits.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        label_smoothing: float = 0.0,
        teacher: nn.Module | None = None,
        weight: float = 1.0,
        temperature: float = 1.0,
    ) -> None:
        self.model = model
        self.label_smoothing = label_smoothing
        self.weight = weight
        self.temperature = temperature
        self.teacher = teacher.eval().requires_grad_(False) if teacher is not None else None
        self.needs_tokens = has_losses(model)

    def to(self, device: torch.device) -> None:
        """Move the teacher to ``device``."""
        if self.teacher is not None:
            self.teacher.to(device)

    def __call__(
        self, logits: Tensor, target: Tensor, clip: Tensor, tokens: Tokens | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the mean loss of a batch, and those of its terms that come from reductions, by name.

        Args:
            logits: (B, K) of the student.
            target: (B,) class ids or (B, K) class probabilities.
            clip: (B, 3, T, H, W) what the student saw.
            tokens: of the student after its last block, where ``needs_tokens``.
        """
        loss = functional.cross_entropy(logits.float(), target, label_smoothing=self.label_smoothing)
        teacher_logits, teacher_tokens = None, None
        if self.teacher is not None:
            with torch.no_grad():
                output = self.teacher(clip, return_tokens=True) if self.needs_tokens else (self.teacher(clip), None)
            teacher_logits, teacher_tokens = output
            wanted = functional.log_softmax(teacher_logits.float() / self.temperature, dim=1)
            got = functional.log_softmax(logits.float() / self.temperature, dim=1)
            divergence = functional.kl_div(got, wanted, reduction="batchmean", log_target=True)
            loss = loss + self.weight * self.temperature**2 * divergence
        if tokens is None:
            return loss, {}
        terms = reduction_losses(self.model, Outcome(logits, target, tokens, teacher_logits, teacher_tokens))
        return loss + sum(terms.values()), terms


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
