"""Small models with reduction slots, every weight random."""

from typing import Any

import torch

import stvideo

CLIP = (2, 3, 4, 32, 32)
KINDS = ("divided", "joint", "space")


def host(attention: str = "divided", reduction: Any = None, **options: Any) -> Any:
    """A TimeSformer of 4 blocks on 4 frames of 4 x 4 patches; the same weights for the same arguments."""
    torch.manual_seed(0)
    sizes = dict(embed_dim=32, depth=4, num_heads=4, patch_size=8, img_size=32, num_frames=4, num_classes=7)
    model = stvideo.create_model("timesformer_base_patch16_224", attention=attention, **{**sizes, **options})
    for method, settings in (reduction or {}).items():
        stvideo.apply_reduction(model, method, **settings)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()
