"""Sizes that the ViT families share (ViT, arXiv 2010.11929; DeiT, arXiv 2012.12877)."""

from __future__ import annotations

SIZES = {
    "tiny": dict(embed_dim=192, depth=12, num_heads=3),
    "small": dict(embed_dim=384, depth=12, num_heads=6),
    "base": dict(embed_dim=768, depth=12, num_heads=12),
    "large": dict(embed_dim=1024, depth=24, num_heads=16),
}


def semantic_layers(depth: int) -> tuple[int, int]:
    """Place STViT's module after a third of the network, where it takes the place of the next two blocks."""
    return depth // 3, depth // 3 + 1
