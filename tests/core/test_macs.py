"""GMACs against published figures and against hand counts."""

import pytest
import torch
from torch import nn

import stvideo


@pytest.fixture(scope="module")
def base():
    with torch.device("meta"):
        return stvideo.create_model("timesformer_base_patch16_224", num_classes=400)


CLIP = (1, 3, 8, 224, 224)


@pytest.mark.parametrize(
    ("method", "options", "published", "tolerance"),
    [
        (None, {}, 195.8, 0.001),
        ("stgm", dict(layers=(4, 5), grid=(8, 4, 4)), 80.0, 0.01),
        ("stgm", dict(layers=(4, 5), grid=(None, 4, 4)), 80.0, 0.01),
        ("evit", dict(keep_rate=0.9), 172.4, 0.001),
        ("evit", dict(keep_rate=0.8), 150.0, 0.001),
        ("evit", dict(keep_rate=0.7), 131.3, 0.001),
        ("evit", dict(keep_rate=0.5), 100.7, 0.001),
        ("evit", dict(keep_rate=0.9, fuse=False), 171.1, 0.001),
        ("evit", dict(keep_rate=0.8, fuse=False), 148.7, 0.001),
        ("evit", dict(keep_rate=0.7, fuse=False), 130.0, 0.001),
        ("evit", dict(keep_rate=0.5, fuse=False), 99.5, 0.001),
    ],
)
def test_timesformer_base(base, method, options, published, tolerance):
    stvideo.remove_reduction(base)
    if method:
        stvideo.apply_reduction(base, method, **options)
    assert stvideo.count_macs(base, CLIP).total == pytest.approx(published, rel=tolerance)


def test_by_module_adds_up(base):
    stvideo.remove_reduction(base)
    macs = stvideo.count_macs(base, CLIP)
    parts = [macs.by_module[name] for name in ("patch_embed", "head", *(f"blocks.{i}" for i in range(12)))]
    assert sum(parts) == pytest.approx(macs.total, rel=1e-6)
    assert macs.by_module["patch_embed"] == pytest.approx(8 * 196 * 3 * 16 * 16 * 768 / 1e9)
    assert macs.by_module["blocks.3.temporal_fc"] == pytest.approx(8 * 196 * 768 * 768 / 1e9)


def test_counting_needs_no_memory_and_changes_nothing():
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(), nn.Linear(8, 2)).train()
    assert stvideo.count_macs(model, (3, 4)).total == pytest.approx(3 * (4 * 8 + 8 * 2) / 1e9)
    assert model.training
    assert model[0].weight.device.type == "cpu"


@pytest.mark.parametrize(
    ("name", "options", "published", "tolerance"),
    [
        ("deit_tiny_patch16_224", {}, 1.26, 0.01),
        ("deit_small_patch16_224", {}, 4.58, 0.01),
        ("deit_base_patch16_224", {}, 17.58, 0.01),
        *(
            (f"stvit_deit_{size}_patch16_224", dict(num_semantic_tokens=count), gmacs, 0.02 if size == "tiny" else 0.01)
            for size, row in {
                "tiny": (0.53, 0.60, 0.71, 0.86),
                "small": (1.91, 2.20, 2.62, 3.16),
                "base": (7.31, 8.44, 10.04, 12.13),
            }.items()
            for count, gmacs in zip((16, 36, 64, 100), row, strict=True)
        ),
        ("stvit_deit_small_patch16_224", dict(layers=(3, 4)), 1.56, 0.01),
        ("stvit_deit_small_patch16_224", dict(layers=(8, 9)), 3.30, 0.01),
        *(
            ("evit_deit_small_patch16_224", dict(keep_rate=rate, img_size=size), gmacs, 0.0125)
            for rate, size, gmacs in (
                (1.0, 224, 4.6), (0.9, 224, 4.0), (0.8, 224, 3.5), (0.7, 224, 3.0), (0.6, 224, 2.6), (0.5, 224, 2.3),
                (0.5, 256, 3.1), (0.5, 288, 3.9), (0.5, 304, 4.4), (0.6, 256, 3.5), (0.6, 288, 4.5), (0.7, 272, 4.6),
            )
        ),
        ("lvvit_small_patch16_224", {}, 6.6, 0.03),
        *(
            ("evit_lvvit_small_patch16_224", dict(keep_rate=rate, img_size=size), gmacs, 0.03)
            for rate, size, gmacs in (
                (0.7, 224, 4.7), (0.5, 224, 3.9), (0.7, 256, 6.2), (0.7, 272, 7.1), (0.8, 256, 6.9), (0.9, 240, 6.8),
                (0.5, 304, 7.4), (1.0, 384, 21.9), (0.7, 448, 21.5),
            )
        ),
    ],
)  # fmt: skip
def test_published_image_models(name, options, published, tolerance):
    with torch.device("meta"):
        model = stvideo.create_model(name, **options)
    counted = stvideo.count_macs(model, (1, 3, *model.img_size)).total
    digits = len(str(published).partition(".")[2])
    assert round(counted, digits) == published or counted == pytest.approx(published, rel=tolerance)


@pytest.mark.parametrize(("frames", "share"), [(8, 0.001), (32, 0.003)])
def test_frames_that_keep_their_own_tokens_waste_little_on_absent_ones(frames, share):
    counted = []
    for scope in ("tube", "frame"):
        with torch.device("meta"):
            reduction = {"evit": dict(keep_rate=0.7, scope=scope)}
            model = stvideo.create_model("timesformer_base_patch16_224", num_frames=frames, reduction=reduction)
        counted.append(stvideo.count_macs(model, (1, 3, frames, 224, 224)).total)
    assert counted[0] < counted[1] < counted[0] * (1 + share)
