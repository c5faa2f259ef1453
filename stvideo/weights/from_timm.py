"""A live timm ViT or DeiT as one of ours, so that reductions can be put into it without training."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from stvideo.core.errors import StvideoError
from stvideo.models.vit import VisionTransformer


def from_timm(timm_model: nn.Module) -> nn.Module:
    """Turn a timm ``VisionTransformer`` (ViT, DeiT, with or without LayerScale and qk-norm) into ours.

    The weights are copied. The result is compared with the original on a random image before it is returned, so a
    variant of timm's that computes anything else is refused rather than changed.

    Args:
        timm_model: e.g. ``timm.create_model("deit_small_patch16_224", pretrained=True)``.

    Returns:
        A model of one frame with the same logits, on the same device and in evaluation mode if the original was.

    Raises:
        StvideoError: not a plain ViT with a class token.
    """
    kind = type(timm_model).__name__
    source: Any = timm_model
    if not all(hasattr(source, name) for name in ("blocks", "patch_embed", "pos_embed", "cls_token", "norm")):
        raise StvideoError(f"from_timm: {kind} is not a timm VisionTransformer")
    if source.cls_token is None or getattr(source, "num_prefix_tokens", 1) != 1:
        raise StvideoError(f"from_timm: {kind} must have one class token and no other prefix tokens")
    if getattr(source, "global_pool", "token") != "token":
        raise StvideoError(f"from_timm: {kind} pools by {source.global_pool!r}; only the class token is supported")
    first = source.blocks[0]
    layer_scale = getattr(getattr(first, "ls1", None), "gamma", None)
    has_head = isinstance(source.head, nn.Linear)
    try:
        model = VisionTransformer(
            img_size=tuple(source.patch_embed.img_size),
            patch_size=source.patch_embed.patch_size[0],
            num_classes=source.head.out_features if has_head else 0,
            embed_dim=source.embed_dim,
            depth=len(source.blocks),
            num_heads=first.attn.num_heads,
            mlp_ratio=first.mlp.fc1.out_features / source.embed_dim,
            qkv_bias=first.attn.qkv.bias is not None,
            qk_norm=isinstance(first.attn.q_norm, nn.LayerNorm),
            layer_scale=None if layer_scale is None else 1.0,
            norm_eps=source.norm.eps,
        )
        model.load_state_dict(source.state_dict(), strict=True)
    except (AttributeError, RuntimeError, TypeError) as error:
        raise StvideoError(f"from_timm: {kind} is no plain ViT: {' '.join(str(error).split())[:200]}") from None
    reference = source.pos_embed
    model.to(device=reference.device, dtype=reference.dtype)
    _check_same(source, model)
    return model.train(source.training)


def _check_same(source: nn.Module, model: VisionTransformer) -> None:
    """Raise `StvideoError` unless both give the same output for a random image."""
    reference = next(model.parameters())
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 3, *model.img_size, generator=generator).to(reference)
    was_training = source.training
    with torch.no_grad():
        expected, output = source.eval()(image), model.eval()(image)
    source.train(was_training)
    tolerance = 1e-4 if reference.dtype == torch.float32 else 5e-2
    if expected.shape != output.shape or not torch.allclose(expected, output, atol=tolerance, rtol=tolerance):
        raise StvideoError(
            f"from_timm: {type(source).__name__} computes something that a plain ViT does not; it cannot be converted"
        )
