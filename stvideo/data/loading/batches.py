"""From a loaded batch to what the model takes: on the device, normalised, and mixed where training asks for it."""

from __future__ import annotations

import torch
from torch import Tensor

from stvideo.data.clips.mixing import MixupCutmix
from stvideo.data.clips.transforms import normalize
from stvideo.settings.schema import DataConfig


class ClipPreparer:
    """Turn uint8 clips from the loader into normalised float clips on a device.

    Args:
        data: mean, std and mixing settings.
        device: where the clips go.
        mixed_classes: for training: mix clips as the settings say, into labels of so many classes.
    """

    def __init__(self, data: DataConfig, device: torch.device, mixed_classes: int | None = None) -> None:
        self.data = data
        self.device = device
        self.generator = torch.Generator()
        self.mixing: MixupCutmix | None = None
        if mixed_classes is not None and (data.mixup > 0 or data.cutmix > 0):
            self.mixing = MixupCutmix(mixup=data.mixup, cutmix=data.cutmix, num_classes=mixed_classes)

    def seed(self, seed: int) -> None:
        """Make the mixing of this step a function of ``seed``."""
        self.generator.manual_seed(seed)

    def clip(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the clips (B, 3, T, H, W), float and normalised."""
        video = batch["video"].to(self.device, non_blocking=True)
        return normalize(video, self.data.mean, self.data.std)

    def clip_and_target(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the clips, and their class ids (B,) or, where they are mixed, class probabilities (B, K)."""
        clip = self.clip(batch)
        label = batch["label"].to(self.device, non_blocking=True)
        return (clip, label) if self.mixing is None else self.mixing(clip, label, self.generator)
