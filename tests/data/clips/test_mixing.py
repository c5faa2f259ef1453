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
        assert type(mixed) is torch.Tensor
        assert soft.shape == (CLASSES, CLASSES)
        assert torch.allclose(soft.sum(1), torch.ones(CLASSES))
        expected = soft @ torch.arange(CLASSES).float()
        assert torch.allclose(mixed.mean((1, 2, 3, 4)), expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_every_frame_is_mixed_alike_with_another_clip(kind):
    video, label = constant_clips()
    mixed, soft = MixupCutmix(**{"mixup": 0.0, "cutmix": 0.0, kind: 1.0}, num_classes=CLASSES)(
        video, label, torch.Generator().manual_seed(3)
    )
    assert ((soft > 0).sum(1) == 2).all()
    assert (mixed == mixed[:, :, :1]).all()


def test_the_input_is_left_alone():
    video, label = constant_clips()
    before = video.clone()
    for alphas in ((1.0, 0.0), (0.0, 1.0)):
        MixupCutmix(*alphas, CLASSES)(video, label, torch.Generator().manual_seed(0))
    assert torch.equal(video, before)


def test_the_generator_decides_alone():
    video, label = constant_clips()
    mixing = MixupCutmix(0.8, 1.0, CLASSES)
    first = mixing(video, label, torch.Generator().manual_seed(9))
    torch.manual_seed(77)
    expected = torch.rand(1)
    torch.manual_seed(77)
    again = mixing(video, label, torch.Generator().manual_seed(9))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert torch.equal(torch.rand(1), expected)


def test_both_kinds_take_turns():
    """A box that was pasted shows two values in one clip, a mixed clip one."""
    video, label = constant_clips()
    mixing = MixupCutmix(0.8, 1.0, CLASSES)
    seen = [len(mixing(video, label, torch.Generator().manual_seed(seed))[0][0].unique()) for seed in range(20)]
    assert {1, 2} == set(seen)


@pytest.mark.parametrize("alphas", [(-1.0, 0.0), (0.0, -1.0), (0.0, 0.0)])
def test_impossible_alphas_are_refused(alphas):
    with pytest.raises(StvideoError, match=r"data\.mixup"):
        MixupCutmix(*alphas, CLASSES)
