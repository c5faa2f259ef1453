"""A model whose choice of patches can be told from the video: it keeps the brightest patch of the clip."""

from pathlib import Path

import torch

import stvideo
from stvideo.weights.saving import save_model

CLASSES = ["dark", "bright", "other"]


def preprocess(num_frames: int, img_size: int, **changes: object) -> dict:
    """How a clip is read: every second frame at 30 fps."""
    settings = dict(
        mean=[0.5] * 3, std=[0.5] * 3, color_order="rgb", sampling="stride", num_frames=num_frames, stride=2,
        target_fps=30.0, img_size=img_size,
    )  # fmt: skip
    return {**settings, **changes}


@torch.no_grad()
def save_brightness_model(path: Path, num_frames: int = 4, img_size: int = 32, patch_size: int = 8) -> Path:
    """A joint-attention model that keeps a single patch of the clip, the brightest, and drops all others."""
    rows = img_size // patch_size
    model = stvideo.create_model(
        "timesformer_tiny_patch16_224",
        num_classes=len(CLASSES),
        num_frames=num_frames,
        img_size=img_size,
        patch_size=patch_size,
        embed_dim=16,
        depth=2,
        num_heads=1,
        attention="joint",
        reduction={"evit": dict(keep_rate=1 / (num_frames * rows**2), layers=(0,), fuse=False)},
    )
    model.pos_embed.zero_()
    model.time_embed.zero_()
    embedding = model.patch_embed.proj
    embedding.weight.zero_()
    embedding.bias.zero_()
    embedding.weight[0] = 1.0 / (3 * patch_size**2)  # channel 0: the patch's mean brightness
    embedding.bias[1] = 1.0  # channel 1: constant, so that the norm does not hide the brightness
    qkv = model.blocks[0].attn.qkv
    qkv.weight.zero_()
    qkv.bias.zero_()
    qkv.bias[0] = 50.0  # the query is the same for every token,
    qkv.weight[16, 0] = 1.0  # the key is the brightness
    save_model(path, model, {"classes": CLASSES, "preprocess": preprocess(num_frames, img_size)})
    return path


def save_random_model(path: Path, reduction: object = None, num_frames: int = 4, **changes: object) -> Path:
    """A small model with random weights."""
    arguments = dict(
        num_classes=len(CLASSES), num_frames=num_frames, img_size=32, patch_size=8, embed_dim=32, depth=4, num_heads=2
    )
    model = stvideo.create_model("timesformer_tiny_patch16_224", reduction=reduction, **{**arguments, **changes})
    save_model(path, model, {"classes": CLASSES, "preprocess": preprocess(num_frames, 32)})
    return path
