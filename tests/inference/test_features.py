"""Features: rows, maps and means agree with each other and with the model."""

import numpy as np
import pytest
import torch

import stvideo
from stvideo.data.video.decode import open_video
from stvideo.inference.features import extract, of_windows
from stvideo.inference.predictor import load_predictor
from tests.steered import save_random_model
from tests.video_files import encode_video


def network(tmp_path, reduction=None, **changes):
    return load_predictor([f"checkpoint={save_random_model(tmp_path / 'm.safetensors', reduction, **changes)}"]).model


CLIP = torch.rand(1, 3, 4, 32, 32, generator=torch.Generator().manual_seed(1))


def test_the_clip_feature_is_what_the_head_reads(tmp_path):
    model = network(tmp_path)
    feature = torch.from_numpy(extract(model, CLIP, "clip")["feature"])
    with torch.inference_mode():
        assert torch.allclose(model.head(feature), model(CLIP)[0], atol=1e-5)


def test_a_dense_map_holds_every_token_at_its_place(tmp_path):
    model = network(tmp_path)
    rows, full = extract(model, CLIP, "token"), extract(model, CLIP, "map")
    assert np.array_equal(full["feature"].reshape(64, -1), rows["feature"])
    with torch.inference_mode():
        patches = model.norm(model.forward_features(CLIP).patches)[0].reshape(4, 4, 4, -1).numpy()
    assert np.allclose(full["feature"], patches, atol=1e-6)


@pytest.mark.parametrize("attention", ["divided", "joint"])
@pytest.mark.parametrize("fuse", [True, False])
def test_kept_patches_of_a_reduced_map_are_found_by_their_index(tmp_path, attention, fuse):
    """The token's own record of where it came from must lead to the same place as the trace."""
    model = network(tmp_path, {"evit": dict(keep_rate=0.5, layers=(1, 2), fuse=fuse)}, attention=attention)
    full = extract(model, CLIP, "map")
    with torch.inference_mode():
        tokens = model.forward_features(CLIP)
        values = model.norm(tokens.patches)[0].flatten(0, 1).numpy()
    places = tokens.indices()[0].flatten().numpy()
    flat = full["feature"].reshape(64, -1)
    for place, value in zip(places, values, strict=True):
        if place >= 0:
            assert np.allclose(flat[place], value, atol=1e-6)
    dropped = full["assign"] < 0
    assert dropped.any() != fuse and not full["feature"][dropped].any()
    frame = extract(model, CLIP, "frame")["feature"]
    for t in range(4):
        if (~dropped[t]).any():
            assert np.allclose(frame[t], full["feature"][t][~dropped[t]].mean(axis=0), atol=1e-5)


def test_windows_have_the_features_of_their_own_frames(tmp_path):
    """A video whose brightness rises: no two windows are alike."""
    frames = np.arange(20, 20 + 30 * 6, 6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 48, 64, 3), np.uint8)
    path = encode_video(tmp_path / "v.mp4", frames)
    predictor = load_predictor([f"checkpoint={save_random_model(tmp_path / 'm.safetensors')}"])
    with open_video(path) as video:
        arrays = of_windows(video, predictor)
        for number, indices in enumerate(arrays["frames"]):
            own = extract(predictor.model, predictor.read_clip(video, indices), "clip")["feature"]
            distance = np.abs(arrays["feature"] - own).max(axis=1)
            assert distance[number] < 1e-5 and distance.argmin() == number and np.sort(distance)[1] > 1e-4
    assert arrays["seconds"].shape == (len(arrays["feature"]), 2) and (np.diff(arrays["seconds"][:, 0]) > 0).all()


def test_semantic_tokens_spread_over_the_patches_they_carry(tmp_path):
    model = network(tmp_path, {"stgm": dict(layers=(1, 2), grid=(2, 2, 2))})
    rows, full = extract(model, CLIP, "token"), extract(model, CLIP, "map")
    assert rows["feature"].shape[0] == 8
    assert np.array_equal(full["feature"], rows["feature"][rows["assign"]])


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "stvit_swin_tiny_patch4_window7_224"])
def test_networks_of_stages_give_the_tokens_that_their_trace_follows(name):
    model = stvideo.create_model(name, num_classes=3, embed_dim=12, depths=(1, 1, 6, 1), num_heads=(1, 1, 2, 2)).eval()
    image = torch.rand(1, 3, 1, 224, 224, generator=torch.Generator().manual_seed(1))
    rows, full = extract(model, image, "token"), extract(model, image, "map")
    assert full["feature"].shape == (1, 14, 14, 48) and rows["assign"].max() < len(rows["feature"])
    assert np.array_equal(full["feature"], rows["feature"][rows["assign"]])
    assert len(rows["feature"]) == (36 if name.startswith("stvit") else 196)
    feature = torch.from_numpy(extract(model, image, "clip")["feature"])
    with torch.inference_mode():
        assert torch.allclose(model.head(feature), model(image)[0], atol=1e-5)
