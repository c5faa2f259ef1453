"""The plain textbook TimeSformer of the repository's tests as a contestant: what all the care about speed buys."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import nn

import stvideo
from stvideo.core.errors import StvideoError
from stvideo.models.block import Block
from stvideo.models.timesformer import TimeSformer
from stvideo.reduction.apply import reduction_options

REFERENCE = Path(stvideo.__file__).parents[1] / "tests" / "reference_timesformer.py"


def has_textbook(model: nn.Module) -> bool:
    """Whether there is a textbook form: of dense TimeSformers with divided attention and a head on the class token."""
    if not isinstance(model, TimeSformer) or reduction_options(model):
        return False
    return model.attention == "divided" and model.global_pool == "token" and model.num_classes > 0


def textbook_form(model: nn.Module) -> nn.Module:
    """The textbook form with the weights of ``model``, which both then share.

    Raises:
        StvideoError: this is an installed package without its tests, or the model has something that textbooks lack.
    """
    if not REFERENCE.is_file():
        raise StvideoError(
            f"reference=true: the textbook TimeSformer is part of the repository's tests, and there is no {REFERENCE}; "
            "run the benchmark in a checkout of the repository"
        )
    spec = importlib.util.spec_from_file_location("stvideo_reference_timesformer", REFERENCE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert isinstance(model, TimeSformer)
    block = model.blocks[0]
    assert isinstance(block, Block)
    with torch.device("meta"):
        reference: nn.Module = module.ReferenceTimeSformer(
            img_size=model.img_size,
            patch_size=model.patch_size,
            num_frames=model.num_frames,
            num_classes=model.num_classes,
            embed_dim=model.embed_dim,
            depth=len(model.blocks),
            num_heads=block.attn.num_heads,
            mlp_ratio=block.mlp.fc1.out_features / model.embed_dim,
            norm_eps=model.norm_eps,
        )
    try:
        reference.load_state_dict(model.state_dict(keep_vars=True), assign=True)
    except RuntimeError as error:
        raise StvideoError(f"reference=true: no textbook form: {' '.join(str(error).split())[:200]}") from None
    return reference
