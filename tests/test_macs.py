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
