"""Mix clips by Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019), whole in time, labels in the same proportion."""

from __future__ import annotations

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from stvideo.core.errors import StvideoError


class MixupCutmix:
    """Mix every clip of a batch with another one, by torchvision.

    Args:
        mixup: alpha of the Beta distribution of the mixing share; 0 turns mixup off.
        cutmix: the same for CutMix; with both on, one of them is drawn per batch.
        num_classes: width of the soft labels.

    Raises:
        StvideoError: an alpha is negative, or both are 0.
    """

    def __init__(self, mixup: float, cutmix: float, num_classes: int) -> None:
        if min(mixup, cutmix) < 0 or max(mixup, cutmix) == 0:
            raise StvideoError(f"data.mixup={mixup}, data.cutmix={cutmix}: expected 0 (off) or more, not both 0")
        kinds = [v2.MixUp(alpha=mixup, num_classes=num_classes)] if mixup else []
        kinds += [v2.CutMix(alpha=cutmix, num_classes=num_classes)] if cutmix else []
        self._mix = v2.RandomChoice(kinds)

    def __call__(
        self, video: torch.Tensor, label: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mix video (B, 3, T, H, W) float with label (B,), in another order: soft labels are (B, num_classes) float32.

        ``generator`` is a CPU generator, from which everything random follows.
        """
        # torchvision mixes neighbours, which may be clips of one video, and draws from the global generator.
        order = torch.randperm(len(video), generator=generator)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            mixed, soft = self._mix(tv_tensors.Video(video[order]), label[order].long())
        return mixed.as_subclass(torch.Tensor), soft
