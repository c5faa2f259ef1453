"""Every frame of a clip is treated alike, random draws follow the generator, crops lie where they should."""

import sys

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st

from stvideo.core.errors import StvideoError
from stvideo.data.clips.transforms import (
    TestTransform,
    TrainTransform,
    mirrored_classes,
    normalize,
    parse_rand_augment,
    random_area_crop,
    square_crop,
    view_crop,
)
from stvideo.data.loading.datasets import build_dataset
from stvideo.settings.schema import DataConfig
from tests.video_files import SHARED_VIDEOS, encode_video

SHARED = SHARED_VIDEOS.parent / "annotations"
sizes = st.integers(8, 2000)


def still_clip(frames: int = 4, height: int = 60, width: int = 80) -> torch.Tensor:
    """The same noisy picture T times: a transform that treats frames alike keeps them equal."""
    picture = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, height, width, 3), dtype=np.uint8))
    return picture.expand(frames, -1, -1, -1)


EVERYTHING = {"color_jitter": 0.4, "rand_augment": "m9-n3", "random_erasing": 1.0}


@pytest.mark.parametrize("options", [{}, EVERYTHING, {"random_resized_crop": [0.2, 1.0], "color_jitter": 0.8}])
def test_all_frames_of_a_clip_are_treated_alike(options):
    transform = TrainTransform(32, short_side=(32, 40), **options)
    for seed in range(30):
        clip = transform(still_clip(), np.random.default_rng(seed))
        assert clip.shape == (3, 4, 32, 32)
        assert clip.dtype == torch.uint8
        assert clip.is_contiguous()
        assert (clip == clip[:, :1]).all()


def test_a_clip_follows_from_its_generator_alone():
    transform = TrainTransform(32, short_side=(32, 40), **EVERYTHING)
    first = transform(still_clip(), np.random.default_rng(7))
    torch.manual_seed(123)  # whatever else draws random numbers
    torch.rand(3)
    assert torch.equal(first, transform(still_clip(), np.random.default_rng(7)))
    assert not torch.equal(first, transform(still_clip(), np.random.default_rng(8)))


def test_transforms_leave_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    TrainTransform(32, short_side=(32, 40), **EVERYTHING)(still_clip(), np.random.default_rng(0))
    assert torch.equal(torch.rand(2), expected)


def test_flip_mirrors_about_half_of_the_clips_and_only_if_allowed():
    height = width = 32
    clip = still_clip(1, height, width)
    straight = clip.permute(3, 0, 1, 2)
    outcomes = {True: 0, False: 0}
    for flip in (True, False):
        transform = TrainTransform(32, short_side=(32, 32), flip=flip)
        for seed in range(100):
            result = transform(clip, np.random.default_rng(seed))
            mirrored = torch.equal(result, straight.flip(-1))
            assert mirrored or torch.equal(result, straight)
            outcomes[flip] += mirrored
    assert outcomes[False] == 0
    assert 30 < outcomes[True] < 70


@given(sizes, sizes, st.floats(1, 2), st.floats(0, 1), st.floats(0, 1))
def test_square_crops_lie_inside_the_frame(height, width, scale, down, right):
    crop = square_crop(height, width, 1 / scale, down, right)
    assert crop.height == crop.width >= 1
    assert 0 <= crop.top <= height - crop.height
    assert 0 <= crop.left <= width - crop.width
    assert crop.height == pytest.approx(min(height, width) / scale, abs=1)


@given(sizes, sizes, st.floats(0.01, 1), st.integers(0, 1000))
def test_area_crops_lie_inside_the_frame(height, width, smallest, seed):
    crop = random_area_crop(height, width, [smallest, 1.0], np.random.default_rng(seed))
    assert crop.height >= 1
    assert crop.width >= 1
    assert 0 <= crop.top <= height - crop.height
    assert 0 <= crop.left <= width - crop.width


@pytest.mark.parametrize(("height", "width"), [(60, 80), (80, 60), (50, 50), (61, 97)])
def test_three_crops_are_those_of_pytorchvideo(height, width, monkeypatch):
    # The module only needs an old name of torchvision for `affine`, which is not used here.
    old_name = "torchvision.transforms.functional_tensor"
    monkeypatch.setitem(sys.modules, old_name, torchvision.transforms._functional_tensor)
    from pytorchvideo.transforms.functional import uniform_crop

    video = torch.arange(height * width).view(1, 1, height, width).float()
    side = min(height, width)
    for number in range(3):
        theirs = uniform_crop(video, side, number)
        box = view_crop(height, width, number, 3)
        ours = video[..., box.top : box.top + side, box.left : box.left + side]
        # PyTorchVideo rounds the middle offset up, we round to even
        shift = 1 if number == 1 else 0
        assert (theirs - ours).abs().max() <= shift * max(1, width)


def test_crops_along_the_longer_side_reach_both_ends():
    for height, width in ((40, 100), (100, 40)):
        boxes = [view_crop(height, width, number, 3) for number in range(3)]
        assert [(box.top, box.left) for box in boxes] == [
            (30 * k * (height > width), 30 * k * (width > height)) for k in range(3)
        ]
    assert view_crop(40, 100, 0, 1).left == 30


def test_test_views_show_the_crop_at_the_right_size():
    frames = torch.zeros(2, 40, 100, 3, dtype=torch.uint8)
    frames[:, :, 60:] = 200
    views = [TestTransform(20, 3)(frames, number) for number in range(3)]
    assert all(view.shape == (3, 2, 20, 20) for view in views)
    assert [round(view.float().mean().item()) for view in views] == [0, 50, 200]


def test_normalize_by_hand():
    video = torch.tensor([0, 255, 51], dtype=torch.uint8).view(1, 3, 1, 1, 1)
    result = normalize(video, mean=[0.45, 0.5, 0.2], std=[0.225, 0.25, 0.1])
    assert torch.allclose(result.flatten(), torch.tensor([-2.0, 2.0, 0.0]), atol=1e-6)
    assert normalize(video[0], [0.5] * 3, [0.5] * 3, torch.bfloat16).dtype == torch.bfloat16


def test_rand_augment_magnitudes_are_timms():
    assert parse_rand_augment("m7-n4") == (21, 4)
    assert parse_rand_augment("rand-m9-n2") == (27, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rand_augment": "m11-n2"}, "rand_augment"),
        ({"rand_augment": "strong"}, "m7-n4"),
        ({"random_erasing": 1.5}, "random_erasing"),
        ({"color_jitter": -1}, "color_jitter"),
        ({"short_side": (20, 40)}, "img_size=32"),
        ({"short_side": (50, 40)}, "smallest, largest"),
        ({"random_resized_crop": [0.0, 1.0]}, "random_resized_crop"),
    ],
)
def test_impossible_settings_are_refused(options, message):
    with pytest.raises(StvideoError, match=message):
        TrainTransform(32, **{"short_side": (32, 40), **options})


SOMETHING = [
    "Pulling something from left to right",
    "Pulling something from right to left",
    "Holding something",
    "Turning the camera left while filming something",
    "Turning the camera right while filming something",
    "Plugging something into something but pulling it right out as you remove your hand",
]


def test_mirrored_clips_change_their_side():
    assert mirrored_classes(SOMETHING).tolist() == [1, 0, 2, 4, 3, 5]
    assert mirrored_classes(["move_left", "MOVE UP", "move_right", "copyright"]).tolist() == [2, 1, 0, 3]
    assert mirrored_classes(["Left", "Right"]).tolist() == [1, 0]


def test_the_left_and_right_classes_of_something_something():
    names = SHARED / "sthv2.txt"
    if not names.exists():
        pytest.skip(f"no class names at {names}")
    mirrored = mirrored_classes(names.read_text().splitlines())
    pairs = {(i, int(other)) for i, other in enumerate(mirrored) if other > i}
    assert pairs == {(86, 87), (93, 94), (166, 167)}
    assert (mirrored[mirrored] == np.arange(174)).all()


def test_a_side_without_its_mirror_image_cannot_be_flipped():
    with pytest.raises(StvideoError, match=r"data.flip=true.*'turn left'.*'turn right'.*data.flip=false"):
        mirrored_classes(["turn left", "stand"])


def test_flipped_training_clips_carry_the_label_that_they_show(tmp_path):
    """Videos with a bright left or right half: whatever the flip, the label names the bright half."""
    for number, side in enumerate(("left", "right")):
        frames = np.full((8, 48, 48, 3), 20, np.uint8)
        frames[:, :, slice(0, 24) if side == "left" else slice(24, 48)] = 220
        for copy in range(2):
            folder = tmp_path / "train" / side
            folder.mkdir(parents=True, exist_ok=True)
            encode_video(folder / f"{number}{copy}.mp4", frames)
    config = DataConfig(root=str(tmp_path), train="train", num_frames=2, stride=1, img_size=32, short_side=[32, 32])
    dataset = build_dataset(config, split="train")
    seen = set()
    for epoch in range(6):
        for number in range(len(dataset)):
            sample = dataset[epoch, number]
            picture = sample["video"].float().mean((0, 1, 2))
            shown = "left" if picture[:16].mean() > picture[16:].mean() else "right"
            assert dataset.classes[sample["label"]] == shown
            seen.add((dataset.path(number).parent.name, shown))
    assert len(seen) == 4  # each class as it is and mirrored
    config.flip = False
    dataset = build_dataset(config, split="train")
    assert all(dataset.path(n).parent.name == dataset.classes[dataset[n]["label"]] for n in range(len(dataset)))
