"""The named Swin-like models: image and video, dense, with semantic tokens, with recovery."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stvideo.models.registry import ModelEntry, register_model
from stvideo.models.swin.model import SwinTransformer
from stvideo.models.swin.stvit import SemanticSwin
from stvideo.models.swin.stvitr import RecoverySwin
from stvideo.models.swin.video import SemanticVideoSwin, VideoSwin

SIZES: dict[str, Mapping[str, Any]] = {
    "tiny": dict(embed_dim=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24)),
    "small": dict(embed_dim=96, depths=(2, 2, 18, 2), num_heads=(3, 6, 12, 24)),
    "base": dict(embed_dim=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32)),
}

for _size, _shape in SIZES.items():
    _image = f"swin_{_size}_patch4_window7_224"
    register_model(ModelEntry(_image, SwinTransformer, _shape))
    register_model(ModelEntry(f"stvit_{_image}", SemanticSwin, _shape))
    if _size != "tiny":
        register_model(ModelEntry(f"stvitr_{_image}", RecoverySwin, _shape))
    for _video in (f"video_swin_{_size}_patch244_window877_224", f"video_swin_{_size}"):  # the second is for short
        register_model(ModelEntry(_video, VideoSwin, _shape))
        register_model(ModelEntry(f"stvit_{_video}", SemanticVideoSwin, _shape))
