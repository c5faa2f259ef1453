"""Mixup and CutMix of clips: pictures are mixed in space, whole in time, and labels in the same proportion."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from stvideo.core.errors import StvideoError


class MixupCutmix:
    """Mix every clip of a batch with another one (Zhang et al. 2018, Yun et al. 2019).

    Args:
        mixup: alpha of the Beta distribution of the mixing share; 0 turns mixup off.
        cutmix: the same for CutMix; with both on, one of them is drawn per batch.
        num_classes: width of the soft labels.
        label_smoothing: share of the label spread over all classes.
        probability: share of batches that are mixed at all.
    """

    def __init__(
        self,
        mixup: float,
        cutmix: float,
        num_classes: int,
        label_smoothing: float = 0.0,
        probability: float = 1.0,
    ) -> None:
        if mixup < 0 or cutmix < 0:
            raise StvideoError(f"data.mixup={mixup}, data.cutmix={cutmix}: these are not negative (0 = off)")
        self.mixup, self.cutmix, self.num_classes = mixup, cutmix, num_classes
        self.label_smoothing, self.probability = label_smoothing, probability

    def __call__(
        self, video: torch.Tensor, label: torch.Tensor, generator: torch.Generator | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """video (B, 3, T, H, W) float or uint8, label (B,) -> mixed video, soft labels (B, num_classes) float32.

        ``generator`` is a CPU generator; the partner of each clip is drawn from it too.
        """
        soft = self._soften(label)
        drawn = torch.rand(3, generator=generator).tolist()
        enabled = [kind for kind in ("mixup", "cutmix") if getattr(self, kind) > 0]
        if not enabled or drawn[0] >= self.probability or len(video) < 2:
            return video, soft
        kind = enabled[min(int(drawn[1] * len(enabled)), len(enabled) - 1)]
        share = _beta(getattr(self, kind), generator)
        partner = torch.randperm(len(video), generator=generator).to(video.device)
        if kind == "mixup":
            mixed = share * video + (1 - share) * video[partner]
            video = mixed if video.is_floating_point() else mixed.round().to(video.dtype)
        else:
            video, share = _paste(video, video[partner], share, generator)
        return video, share * soft + (1 - share) * soft[partner]

    def _soften(self, label: torch.Tensor) -> torch.Tensor:
        hard = F.one_hot(label.long(), self.num_classes).float()
        return hard * (1 - self.label_smoothing) + self.label_smoothing / self.num_classes


def _paste(
    video: torch.Tensor, other: torch.Tensor, share: float, generator: torch.Generator | None
) -> tuple[torch.Tensor, float]:
    """Replace a box of height x width in all frames; the returned share is exactly that of the pixels kept."""
    height, width = video.shape[-2:]
    cut = math.sqrt(1 - share)
    center = torch.rand(2, generator=generator).tolist()
    top, bottom = _interval(center[0], cut, height)
    left, right = _interval(center[1], cut, width)
    video = video.clone()
    video[..., top:bottom, left:right] = other[..., top:bottom, left:right]
    return video, 1 - (bottom - top) * (right - left) / (height * width)


def _interval(center: float, cut: float, length: int) -> tuple[int, int]:
    middle, half = center * length, cut * length / 2
    return max(round(middle - half), 0), min(round(middle + half), length)


def _beta(alpha: float, generator: torch.Generator | None) -> float:
    """A draw from Beta(alpha, alpha), which torch cannot draw from a given generator."""
    seed = int(torch.randint(2**62, (), generator=generator))
    return float(np.random.default_rng(seed).beta(alpha, alpha))
