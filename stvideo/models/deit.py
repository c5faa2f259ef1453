"""DeiT: the plain image ViT, under the names of its sizes and of its reduced forms.

Touvron et al., "Training data-efficient image transformers & distillation through attention", ICML 2021,
arXiv 2012.12877. STViT (arXiv 2303.08685) has no class token: its head reads the mean of the semantic tokens, and its
layers start nearly closed.
"""

from __future__ import annotations

from typing import Any

from stvideo.models.registry import ModelEntry, register_model
from stvideo.models.vit import VisionTransformer

SIZES = {
    "tiny": dict(embed_dim=192, depth=12, num_heads=3),
    "small": dict(embed_dim=384, depth=12, num_heads=6),
    "base": dict(embed_dim=768, depth=12, num_heads=12),
    "large": dict(embed_dim=1024, depth=24, num_heads=16),
}
"""Sizes of DeiT and ViT, which other families share."""

for _size in ("tiny", "small", "base"):
    _name, _shape = f"deit_{_size}_patch16_224", SIZES[_size]
    _pooled: dict[str, Any] = dict(**_shape, class_token=False, global_pool="avg")
    _semantic = dict(num_semantic_tokens=16, layer_scale=1e-5)
    register_model(ModelEntry(_name, VisionTransformer, _shape))
    register_model(ModelEntry(f"evit_{_name}", VisionTransformer, _shape, "evit"))
    register_model(ModelEntry(f"stvitr_{_name}", VisionTransformer, _shape, "stvitr"))
    register_model(ModelEntry(f"{_name}_avg", VisionTransformer, _pooled))
    register_model(ModelEntry(f"stvit_{_name}", VisionTransformer, _pooled, "stgm", _semantic))
