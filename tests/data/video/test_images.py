"""Image folders: clips of one frame, prepared as the image papers do."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets, transforms

from stvideo import StvideoError
from stvideo.data.clips.transforms import normalize
from stvideo.data.loading.datasets import build_dataset
from stvideo.data.video.decode import open_video, read_frames
from stvideo.data.video.packets import UnreadableVideo
from stvideo.settings.schema import DataConfig

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    for split in ("train", "val"):
        for i, name in enumerate(("n01440764", "n01443537")):
            (tmp_path / split / name).mkdir(parents=True)
            for j, (height, width) in enumerate(((300, 401), (333, 260), (64, 64))):
                coarse = generator.integers(0, 255, (9, 12, 3), dtype=np.uint8)
                picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
                picture.save(tmp_path / split / name / f"{i}{j}.png")
    return tmp_path


def config(folder, **options):
    settings = dict(num_frames=1, img_size=224, test_short_side=256, mean=MEAN, std=STD, short_side=[256, 320])
    return DataConfig(root=str(folder), train="train", val="val", **{**settings, **options})


def test_the_evaluation_pictures_are_those_of_torchvision(folder):
    dataset = build_dataset(config(folder), "val")
    reference = datasets.ImageFolder(
        folder / "val",
        transforms.Compose(
            [
                transforms.Resize(256, interpolation=transforms.InterpolationMode.BICUBIC),
                transforms.CenterCrop(224),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        ),
    )
    assert dataset.classes == reference.classes
    assert len(dataset) == len(reference) == 6
    for i in range(6):
        picture, label = reference[i]
        sample = dataset[i]
        assert sample["label"] == label
        assert sample["video"].shape == (3, 1, 224, 224)
        assert torch.allclose(normalize(sample["video"], MEAN, STD)[:, 0], picture, atol=1e-5)


def test_training_crops_are_random_and_repeatable(folder):
    dataset = build_dataset(config(folder, random_resized_crop=[0.08, 1.0]), "train")
    assert torch.equal(dataset[0, 3]["video"], dataset[0, 3]["video"])
    assert not torch.equal(dataset[0, 3]["video"], dataset[1, 3]["video"])


def test_several_frames_of_an_image_are_the_same(folder):
    frames = read_frames(folder / "val" / "n01440764" / "00.png", [0, 0, 0])
    assert frames.shape == (3, 300, 401, 3)
    assert torch.equal(frames[0], frames[2])
    with open_video(folder / "val" / "n01440764" / "00.png") as image:
        assert (image.info.width, image.info.height, image.num_frames) == (401, 300, 1)


def test_a_broken_image_is_named(folder):
    path = folder / "val" / "n01440764" / "00.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UnreadableVideo, match=r"00\.png"):
        build_dataset(config(folder), "val")[0]


def test_a_short_side_below_the_crop_is_refused(folder):
    with pytest.raises(StvideoError, match="test_short_side"):
        build_dataset(config(folder, test_short_side=200), "val")
