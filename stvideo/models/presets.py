"""The named models. Sizes follow DeiT and ViT: tiny, small, base, large."""

from __future__ import annotations

from stvideo.models.registry import ModelEntry, register_model
from stvideo.models.timesformer import TimeSformer

SIZES = {
    "tiny": dict(embed_dim=192, depth=12, num_heads=3),
    "small": dict(embed_dim=384, depth=12, num_heads=6),
    "base": dict(embed_dim=768, depth=12, num_heads=12),
    "large": dict(embed_dim=1024, depth=24, num_heads=16),
}

# TimeSformer's own "HR" and "L" are the base size at 16 x 448 and 96 x 224: pass img_size and num_frames.
for _size, _shape in SIZES.items():
    _name = f"timesformer_{_size}_patch16_224"
    register_model(ModelEntry(_name, TimeSformer, _shape))
    register_model(ModelEntry(f"evit_{_name}", TimeSformer, _shape, reduction="evit"))
    _third = _shape["depth"] // 3  # a third of the network sees all patches, as in the paper
    register_model(
        ModelEntry(
            f"stvit_{_name}",
            TimeSformer,
            _shape,
            reduction="stgm",
            reduction_options=dict(layers=(_third, _third + 1), grid=(None, 4, 4)),
        )
    )
