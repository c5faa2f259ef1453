"""The named ViT-like models. Sizes follow DeiT and ViT: tiny, small, base, large."""

from __future__ import annotations

from typing import Any

from stvideo.models.lvvit import LVViT
from stvideo.models.registry import ModelEntry, register_model
from stvideo.models.timesformer import TimeSformer
from stvideo.models.vit import VisionTransformer

SIZES = {
    "tiny": dict(embed_dim=192, depth=12, num_heads=3),
    "small": dict(embed_dim=384, depth=12, num_heads=6),
    "base": dict(embed_dim=768, depth=12, num_heads=12),
    "large": dict(embed_dim=1024, depth=24, num_heads=16),
}


def _semantic_layers(depth: int) -> tuple[int, int]:
    """A third of the network sees all patches, as in STViT; the module takes the place of the next two blocks."""
    return depth // 3, depth // 3 + 1


# TimeSformer's own "HR" and "L" are the base size at 16 x 448 and 96 x 224: pass img_size and num_frames.
for _size, _shape in SIZES.items():
    _name = f"timesformer_{_size}_patch16_224"
    _semantic: dict[str, Any] = dict(layers=_semantic_layers(_shape["depth"]))
    register_model(ModelEntry(_name, TimeSformer, _shape))
    register_model(ModelEntry(f"evit_{_name}", TimeSformer, _shape, reduction="evit"))
    register_model(ModelEntry(f"stvit_{_name}", TimeSformer, _shape, reduction="stgm", reduction_options=_semantic))
    register_model(ModelEntry(f"stvitr_{_name}", TimeSformer, _shape, reduction="stvitr"))

# STViT has no class token: its head stands on the mean of the semantic tokens, and its layers start nearly closed.
for _size in ("tiny", "small", "base"):
    _shape = SIZES[_size]
    _name = f"deit_{_size}_patch16_224"
    _pooled = dict(**_shape, class_token=False, global_pool="avg")
    _semantic = dict(layers=_semantic_layers(_shape["depth"]), num_semantic_tokens=16, layer_scale=1e-5)
    register_model(ModelEntry(_name, VisionTransformer, _shape))
    register_model(ModelEntry(f"evit_{_name}", VisionTransformer, _shape, reduction="evit"))
    register_model(ModelEntry(f"stvitr_{_name}", VisionTransformer, _shape, reduction="stvitr"))
    register_model(ModelEntry(f"deit_{_size}_patch16_224_avg", VisionTransformer, _pooled))
    register_model(
        ModelEntry(f"stvit_{_name}", VisionTransformer, _pooled, reduction="stgm", reduction_options=_semantic)
    )

register_model(ModelEntry("lvvit_small_patch16_224", LVViT))
register_model(ModelEntry("evit_lvvit_small_patch16_224", LVViT, reduction="evit"))
