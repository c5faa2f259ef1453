"""From a loaded batch to what the model takes: on the device, normalised, and mixed where training asks for it."""

from __future__ import annotations

import torch
from torch import Tensor

from stvideo.data.clips.mixing import MixupCutmix
from stvideo.data.clips.transforms import normalize
from stvideo.settings.config import DataConfig


class ClipPreparer:
    """uint8 clips from the loader to normalised float clips on ``device``.

    Args:
        data: mean, std and mixing settings.
        num_classes: length of a mixed label.
        mixing: whether to apply Mixup and CutMix (training only).
    """

    def __init__(self, data: DataConfig, device: torch.device, *, num_classes: int, mixing: bool = False) -> None:
        self.data = data
        self.device = device
        self.mixing: MixupCutmix | None = None
        self.generator = torch.Generator()
        if mixing and (data.mixup > 0 or data.cutmix > 0):
            self.mixing = MixupCutmix(mixup=data.mixup, cutmix=data.cutmix, num_classes=num_classes)

    def seed(self, seed: int) -> None:
        """Make the mixing of this step a function of ``seed``."""
        self.generator.manual_seed(seed % 2**64)

    def clip(self, batch: dict[str, Tensor]) -> Tensor:
        """(B, 3, T, H, W) float, normalised."""
        video = batch["video"].to(self.device, non_blocking=True)
        return normalize(video, self.data.mean, self.data.std)

    def clip_and_target(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The clip, and its class ids (B,) or class probabilities (B, K)."""
        clip = self.clip(batch)
        label = batch["label"].to(self.device, non_blocking=True)
        if self.mixing is None:
            return clip, label
        return self.mixing(clip, label, self.generator)
