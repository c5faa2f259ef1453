"""Labels are mixed in the proportion of the pixels, and whole in time."""

import pytest
import torch

from stvideo.core.errors import StvideoError
from stvideo.data.clips.mixing import MixupCutmix

CLASSES = 4


def constant_clips() -> tuple[torch.Tensor, torch.Tensor]:
    """Four clips whose pixels all equal their class, so that shares can be read off the pixels."""
    label = torch.arange(CLASSES)
    return label.float().view(-1, 1, 1, 1, 1).expand(-1, 3, 5, 24, 36).contiguous(), label


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_label_shares_are_pixel_shares(kind):
    video, label = constant_clips()
    alphas = {"mixup": 0.0, "cutmix": 0.0, kind: 1.0}
    for seed in range(40):
        mixed, soft = MixupCutmix(**alphas, num_classes=CLASSES)(video, label, torch.Generator().manual_seed(seed))
        assert soft.shape == (CLASSES, CLASSES)
        assert torch.allclose(soft.sum(1), torch.ones(CLASSES))
        expected = soft @ torch.arange(CLASSES).float()
        assert torch.allclose(mixed.mean((1, 2, 3, 4)), expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_every_frame_is_mixed_alike(kind):
    video, label = constant_clips()
    mixed, _ = MixupCutmix(**{"mixup": 0.0, "cutmix": 0.0, kind: 1.0}, num_classes=CLASSES)(
        video, label, torch.Generator().manual_seed(3)
    )
    assert not torch.equal(mixed, video)
    assert (mixed == mixed[:, :, :1]).all()


def test_cutmix_pastes_one_box_and_leaves_the_input_alone():
    video, label = constant_clips()
    before = video.clone()
    mixed, _ = MixupCutmix(0.0, 1.0, CLASSES)(video, label, torch.Generator().manual_seed(0))
    assert torch.equal(video, before)
    changed = (mixed != video)[:, 0, 0].float()
    for picture in changed:
        rows, columns = picture.amax(1), picture.amax(0)
        assert torch.equal(picture, rows[:, None] * columns[None])


def test_uint8_clips_stay_uint8():
    video, label = constant_clips()
    mixed, _ = MixupCutmix(0.8, 0.0, CLASSES)((video * 60).to(torch.uint8), label, torch.Generator().manual_seed(1))
    assert mixed.dtype == torch.uint8


def test_the_generator_decides_alone():
    video, label = constant_clips()
    mixing = MixupCutmix(0.8, 1.0, CLASSES)
    first = mixing(video, label, torch.Generator().manual_seed(9))
    torch.manual_seed(77)
    again = mixing(video, label, torch.Generator().manual_seed(9))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])


def test_smoothing_and_probability_zero():
    video, label = constant_clips()
    mixed, soft = MixupCutmix(0.8, 1.0, CLASSES, label_smoothing=0.1, probability=0.0)(video, label)
    assert torch.equal(mixed, video)
    assert torch.allclose(soft.diagonal(), torch.full((CLASSES,), 0.925))
    assert torch.allclose(soft.sum(1), torch.ones(CLASSES))


def test_negative_alpha_is_refused():
    with pytest.raises(StvideoError, match="mixup"):
        MixupCutmix(-1.0, 0.0, CLASSES)
