"""A feature pyramid on top of a hierarchical model, as torchvision's detectors take it.

Lin et al., "Feature Pyramid Networks for Object Detection", arXiv 1612.03144.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from stvideo.core.errors import StvideoError
from stvideo.models.base import Backbone


class PyramidBackbone(nn.Module):
    """A model built with ``features_only=True`` and an FPN: the ``backbone`` of torchvision's Faster and Mask R-CNN.

        model = stvideo.create_model("stvitr_swin_small_patch4_window7_224", features_only=True)
        detector = torchvision.models.detection.MaskRCNN(PyramidBackbone(model), num_classes=91)

    Args:
        model: gives maps "0" to "3"; a hierarchical backbone.
        out_channels: channels of every level of the pyramid.

    Raises:
        StvideoError: the model gives logits, not maps.
    """

    def __init__(self, model: nn.Module, out_channels: int = 256) -> None:
        super().__init__()
        if not isinstance(model, Backbone) or not model.features_only:
            raise StvideoError(f"{type(model).__name__} gives logits, not a pyramid; build it with features_only=True")
        self.body = model
        dims = [int(stage["num_chs"]) for stage in model.feature_info]
        self.fpn = FeaturePyramidNetwork(dims, out_channels, extra_blocks=LastLevelMaxPool())
        self.out_channels = out_channels

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """(B, 3, H, W) -> "0" to "3" at strides 4 to 32 and "pool" at 64, each (B, out_channels, h, w)."""
        return self.fpn(self.body(images))
