"""Small models of every family with every reduction, for the tests of export and compilation."""

from collections.abc import Callable
from typing import Any

import pytest

import stvideo
from tests.models.swin_small import shake, small
from tests.reduction.hosts import KINDS, host

REDUCTIONS = {
    "stgm": dict(layers=(1, 2), grid=(3, 2, 2)),  # three slots of four frames: they overlap, and so have padding
    "stvitr": dict(layers=(1, 2, 3), grid=(2, 1, 1)),
    "evit": dict(keep_rate=0.5),
    "random": dict(keep_rate=0.5),
}
ODD = dict(img_size=(40, 24), num_frames=3)
IMAGE_MODEL = dict(embed_dim=32, depth=4, num_heads=2, img_size=32, patch_size=8, num_classes=7)
SHORT = dict(depths=(1, 1, 4, 1))  # the least that holds an STGM and what follows it


def image_model(name: str, **options: Any) -> Any:
    return shake(stvideo.create_model(name, **{**IMAGE_MODEL, **options}))


CASES: dict[str, Callable[[], Any]] = {
    **{f"dense {kind}": (lambda kind=kind: host(kind)) for kind in KINDS},
    **{
        f"{method} {kind}": (lambda kind=kind, method=method: host(kind, {method: REDUCTIONS.get(method, {})}))
        for kind in KINDS
        for method in stvideo.list_reductions()
    },
    "evit frame divided": lambda: host("divided", {"evit": dict(keep_rate=0.5, scope="frame")}),
    "evit frame space": lambda: host("space", {"evit": dict(keep_rate=0.5, scope="frame")}),
    "evit tube joint": lambda: host("joint", {"evit": dict(keep_rate=0.5, scope="tube")}),
    "evit without fusion": lambda: host("divided", {"evit": dict(keep_rate=0.5, fuse=False)}),
    "evit frame, then stgm": lambda: host(
        "divided",
        {"evit": dict(keep_rate=0.5, layers=(0, 1), scope="frame"), "stgm": dict(layers=(2, 3), grid=(3, 2, 2))},
    ),
    "stgm, then evit": lambda: host(
        "divided", {"stgm": dict(layers=(0, 1), grid=(2, 2, 2)), "evit": dict(keep_rate=0.5, layers=(2,), fuse=False)}
    ),
    "evit odd": lambda: host("divided", {"evit": dict(keep_rate=0.3)}, **ODD),
    "stgm odd": lambda: host("divided", {"stgm": dict(layers=(1, 2), grid=(2, 2, 2))}, **ODD),
    "averaged": lambda: host("divided", {"stgm": dict(layers=(1, 2), grid=(None, 2, 2))}, global_pool="avg"),
    "deit": lambda: image_model("deit_small_patch16_224"),
    "stvit deit": lambda: image_model("stvit_deit_small_patch16_224", num_semantic_tokens=4, layers=(1, 2)),
    "evit deit": lambda: image_model("evit_deit_small_patch16_224", qk_norm=True, layer_scale=0.1),
    "lvvit": lambda: image_model("lvvit_small_patch16_224"),
    "evit lvvit": lambda: image_model("evit_lvvit_small_patch16_224"),
    "swin": lambda: small("swin_tiny_patch4_window7_224", img_size=(250, 224), depths=(2, 2, 2, 1)),
    "stvit swin": lambda: small("stvit_swin_tiny_patch4_window7_224", img_size=(250, 224), num_frames=2, **SHORT),
    "stvitr swin": lambda: small("stvitr_swin_small_patch4_window7_224", img_size=100, depths=(1, 1, 6, 1)),
    "video swin": lambda: small("video_swin_tiny", img_size=64, num_frames=5, depths=(1, 2, 1, 1)),
    "stvit video swin": lambda: small("stvit_video_swin_tiny", img_size=64, num_frames=4, **SHORT),
}


EVERY_METHOD = [f"{method} divided" for method in stvideo.list_reductions()]


def cases(*quick: str) -> Any:
    """Parametrise a test over all cases; those that are not ``quick`` are marked slow."""
    assert set(quick) <= set(CASES)
    marked = [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in CASES]
    return pytest.mark.parametrize("case", marked)
