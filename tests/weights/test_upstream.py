"""Files without our description: which model they are for is told from their weights."""

import pytest
import timm
import torch

import stvideo
from stvideo import StvideoError, load_model

IMAGES = (
    "deit_tiny_patch16_224",
    "lvvit_small_patch16_224",
    "swin_tiny_patch4_window7_224",
    "stvitr_swin_small_patch4_window7_224",
)


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_model_is_known_by_its_weights(tmp_path, name):
    torch.manual_seed(0)
    source = stvideo.create_model(name, num_classes=12).eval()
    torch.save({"model": source.state_dict()}, tmp_path / "w.pth")
    model = load_model(tmp_path / "w.pth")
    metadata = model.metadata
    assert metadata["model"]["name"] == name
    assert metadata["preprocess"]["mean"] == [0.485, 0.456, 0.406]
    assert metadata["preprocess"]["test_short_side"] == 256
    assert metadata["preprocess"]["num_frames"] == 1
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(model.eval()(image), source(image))


def test_a_deit_of_timm_at_another_size_takes_a_reduction_without_training(tmp_path):
    source = timm.create_model("deit_tiny_patch16_224", img_size=288, num_classes=7).eval()
    torch.save(source.state_dict(), tmp_path / "deit.pth")
    model = load_model(tmp_path / "deit.pth", reduction={"evit": dict(keep_rate=0.5)})
    metadata = model.metadata
    assert metadata["preprocess"]["img_size"] == 288
    assert metadata["preprocess"]["test_short_side"] == 329
    image = torch.randn(1, 3, 288, 288)
    with torch.no_grad():
        assert model.eval()(image).shape == (1, 7)
        assert torch.allclose(stvideo.remove_reduction(model)(image), source(image), atol=1e-5)


def test_a_video_swin_of_torchvision(tmp_path):
    from torchvision.models.video import swin3d_t

    torch.save(swin3d_t(num_classes=400).state_dict(), tmp_path / "swin3d.pth")
    _ = load_model(tmp_path / "swin3d.pth")
    metadata = _.metadata
    assert metadata["model"]["name"].startswith("video_swin_tiny")
    assert metadata["preprocess"]["num_frames"] == 32
    assert metadata["preprocess"]["stride"] == 2


def test_an_unknown_network_is_one_clear_line(tmp_path):
    torch.save({"head.weight": torch.ones(3, 4), "stem.weight": torch.ones(2)}, tmp_path / "x.pth")
    with pytest.raises(StvideoError, match="cannot tell which model"):
        load_model(tmp_path / "x.pth")
