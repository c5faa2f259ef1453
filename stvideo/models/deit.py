"""DeiT: the plain image ViT, under the names of its sizes and of its reduced forms.

Touvron et al., "Training data-efficient image transformers & distillation through attention", ICML 2021,
arXiv 2012.12877. STViT (arXiv 2303.08685) has no class token: its head reads the mean of the semantic tokens, and its
layers start nearly closed.
"""

from __future__ import annotations

from typing import Any

from stvideo.models.registry import ModelEntry, register_model
from stvideo.models.sizes import SIZES, semantic_layers
from stvideo.models.vit import VisionTransformer

for _size in ("tiny", "small", "base"):
    _name, _shape = f"deit_{_size}_patch16_224", SIZES[_size]
    _pooled: dict[str, Any] = dict(**_shape, class_token=False, global_pool="avg")
    _semantic = dict(layers=semantic_layers(_shape["depth"]), num_semantic_tokens=16, layer_scale=1e-5)
    register_model(ModelEntry(_name, VisionTransformer, _shape))
    register_model(ModelEntry(f"evit_{_name}", VisionTransformer, _shape, "evit"))
    register_model(ModelEntry(f"stvitr_{_name}", VisionTransformer, _shape, "stvitr"))
    register_model(ModelEntry(f"{_name}_avg", VisionTransformer, _pooled))
    register_model(ModelEntry(f"stvit_{_name}", VisionTransformer, _pooled, "stgm", _semantic))
