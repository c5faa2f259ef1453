"""Video Swin transformer, and STViT on it.

Liu et al., "Video Swin Transformer", CVPR 2022, arXiv 2106.13230: patches of 2 x 4 x 4, windows of 8 x 7 x 7 with
shifts in all three directions. STViT on it is the video experiment of arXiv 2303.08685: every frame of the token grid
keeps its own semantic tokens in the last two stages. There the ordinary patch embedding stays, centres read the patches
of their own frame, and semantic layers attend through time: one window's tokens of all frames, then all tokens.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from stvideo.core.errors import StvideoError
from stvideo.models.registry import ModelEntry, register_model
from stvideo.models.swin.layers import PatchStem, Size3
from stvideo.models.swin.model import SIZES, SwinTransformer
from stvideo.models.swin.stvit import SemanticSwin


class VideoSwin(SwinTransformer):
    """Swin on clips (B, 3, T, H, W), windows spanning time; see `SwinTransformer` for the other arguments.

    Any frame count is taken; one that is no multiple of ``patch_frames`` is padded with zeros, as pixels are.

    Args:
        window_frames: tokens along a window's time axis.
        patch_frames: frames that a patch spans.
    """

    flat_bias = True

    def __init__(self, *, window_frames: int = 8, patch_frames: int = 2, num_frames: int = 32, **options: Any) -> None:
        if window_frames < 1 or patch_frames < 1:
            raise StvideoError(f"window_frames {window_frames} and patch_frames {patch_frames} must be positive")
        self.window_frames = window_frames
        self.patch_frames = patch_frames
        super().__init__(num_frames=num_frames, **options)

    @property
    def window(self) -> Size3:
        """Attention window (frames, rows, columns)."""
        return (self.window_frames, self.window_size, self.window_size)

    def make_stem(self, dim: int) -> nn.Module:
        """Patches that span time."""
        return PatchStem((self.patch_frames, self.patch_size, self.patch_size), dim)


class SemanticVideoSwin(SemanticSwin, VideoSwin):
    """Video Swin with semantic tokens per frame from the middle of stage 3 on.

    See `SemanticSwin` and `VideoSwin` for the arguments.
    """

    def make_stem(self, dim: int) -> nn.Module:
        """The ordinary patch embedding."""
        return VideoSwin.make_stem(self, dim)

    def semantic_options(self) -> dict[str, Any]:
        """As `SwinTransformer.make_block` wants them."""
        return super().semantic_options() | dict(over_time=True)


for _size, _shape in SIZES.items():
    for _name in (f"video_swin_{_size}_patch244_window877_224", f"video_swin_{_size}"):  # the second is for short
        register_model(ModelEntry(_name, VideoSwin, _shape))
        register_model(ModelEntry(f"stvit_{_name}", SemanticVideoSwin, _shape))
