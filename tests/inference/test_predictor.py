"""A checkpoint on single videos reads them exactly as an evaluation does."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import stvideo
from stvideo.core.errors import StvideoError
from stvideo.data.clips.transforms import normalize
from stvideo.data.loading.datasets import build_dataset
from stvideo.data.video.decode import VideoInfo, open_video
from stvideo.inference.predictor import Predictor, load_predictor
from stvideo.settings.schema import Config, DataConfig
from stvideo.weights.saving import save_model
from tests.painted_videos import painted_frames, write_video
from tests.properties import unhurried
from tests.steered import preprocess, save_brightness_model, save_random_model


def predictor(**data: object) -> Predictor:
    return Predictor(torch.nn.Identity(), Config(data=DataConfig(**data)))


@unhurried
@given(
    st.integers(1, 400), st.sampled_from([10.0, 29.97, 60.0]), st.integers(1, 16), st.integers(1, 40),
    st.sampled_from(["stride", "segment"]), st.one_of(st.none(), st.floats(0.5, 50)),
)  # fmt: skip
def test_windows_cover_every_frame_once(total, fps, num_frames, stride, sampling, hop):
    reader = predictor(num_frames=num_frames, stride=stride, sampling=sampling)
    info = VideoInfo(total, fps, 64, 48, "h264", "mp4")
    windows = reader.windows(info, hop)
    covered = [frame for window in windows for frame in range(window.start, window.stop)]
    assert covered == list(range(total))
    for window in windows:
        assert len(window.indices) == num_frames and (np.diff(window.indices) >= 0).all()
        assert window.indices.min() >= 0 and window.indices.max() < total
    span = reader.span(info)
    if hop is None and sampling == "stride" and span >= 1:
        most = np.ceil(round(total / span, 9))
        assert most - 1 <= len(windows) <= max(1, most)  # a window shorter than half a frame falls away
        for window in windows:  # every frame is near a sampled one
            gap = span / max(num_frames - 1, 1) + 2 if num_frames > 1 else span + 2
            assert all(np.abs(window.indices - frame).min() <= gap for frame in range(window.start, window.stop))


def test_one_window_is_the_evaluated_clip_where_the_video_is_as_long_as_a_clip():
    reader = predictor(num_frames=4, stride=2)
    info = VideoInfo(8, 30.0, 64, 48, "h264", "mp4")
    (window,) = reader.windows(info)
    assert window.indices.tolist() == reader.indices(info).tolist() == [0, 2, 4, 7]
    assert [window.nearest(frame) for frame in range(8)] == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("sampling,color_order", [("stride", "rgb"), ("segment", "bgr")])
def test_the_clip_is_the_one_that_evaluation_sees(tmp_path, sampling, color_order):
    frames = painted_frames(30, 96, 64, (9, 1, 2))
    for number, frame in enumerate(frames):
        frame[:, :, 0] = 8 * number
    (tmp_path / "only").mkdir()
    write_video(tmp_path / "only" / "clip.mp4", frames)
    model = stvideo.create_model("timesformer_tiny_patch16_224", num_classes=1, num_frames=4, img_size=32, patch_size=8,
                                 embed_dim=32, depth=2, num_heads=2)  # fmt: skip
    settings = preprocess(4, 32, sampling=sampling, color_order=color_order)
    save_model(tmp_path / "model.safetensors", model, {"classes": ["only"], "preprocess": settings})
    reader = load_predictor([f"checkpoint={tmp_path / 'model.safetensors'}"])
    with open_video(tmp_path / "only" / "clip.mp4") as video:
        clip = reader.read_clip(video, reader.indices(video.info))
    dataset = build_dataset(DataConfig(root=str(tmp_path), val=str(tmp_path), **settings), split="val", views="1x1")
    expected = normalize(dataset[0]["video"][None], settings["mean"], settings["std"])
    assert torch.equal(clip, expected)
    probabilities, trace = reader.run(clip)
    assert torch.allclose(torch.from_numpy(probabilities), model.eval()(expected).softmax(-1)[0], atol=1e-6)
    assert "output" in trace.assign


def test_top_classes_in_order_and_never_more_than_there_are():
    reader = predictor()
    reader.model.classes = ["a", "b", "c"]
    top = reader.top(np.array([0.2, 0.5, 0.3], np.float32), 5)
    assert [name for name, _ in top] == ["b", "c", "a"]
    assert reader.top(np.array([0.2, 0.5, 0.3], np.float32), 1) == [("b", pytest.approx(0.5))]


def test_settings_of_the_command_line_win_and_warn(tmp_path, capsys):
    path = save_random_model(tmp_path / "m.safetensors", {"evit": dict(keep_rate=0.5, layers=(1,))})
    reader = load_predictor([f"checkpoint={path}", "data.stride=5", "model.reduction.evit.keep_rate=0.25"])
    assert reader.preprocessing.stride == 5 and "overrides the checkpoint's 2" in capsys.readouterr().err
    _, trace = reader.run(torch.zeros(1, 3, 4, 32, 32))
    assert int((~trace.fused["output"] & (trace.assign["output"] >= 0)).sum()) == 4 * 4
    dense = load_predictor([f"checkpoint={path}", "model.reduction=null"])
    assert set(dense.run(torch.zeros(1, 3, 4, 32, 32))[1].assign) == {"output"}
    longer = load_predictor([f"checkpoint={path}", "data.num_frames=6"])
    assert longer.run(torch.zeros(1, 3, 6, 32, 32))[0].shape == (3,)


def test_a_file_without_preprocessing_says_so(tmp_path, capsys):
    model = stvideo.create_model("timesformer_tiny_patch16_224", num_classes=2, num_frames=4, img_size=32, patch_size=8)
    save_model(tmp_path / "m.safetensors", model, {})
    reader = load_predictor([f"checkpoint={tmp_path / 'm.safetensors'}"])
    assert (reader.preprocessing.num_frames, reader.preprocessing.img_size, reader.model.classes) == (
        4,
        32,
        ["class 0", "class 1"],
    )
    assert "does not say how its input was prepared" in capsys.readouterr().err


def test_an_official_file_without_a_head_is_refused(tmp_path):
    model = stvideo.create_model("timesformer_tiny_patch16_224", num_classes=3, num_frames=4, img_size=32,
                                 embed_dim=64, depth=2, num_heads=1)  # fmt: skip
    state = {f"model.{name}": value for name, value in model.state_dict().items() if not name.startswith("head.")}
    torch.save({"model_state": state}, tmp_path / "official.pyth")
    with pytest.raises(StvideoError, match=r"no classification head.*init=PATH"):
        load_predictor([f"checkpoint={tmp_path / 'official.pyth'}"])


@pytest.mark.parametrize(
    "override,message",
    [("data.flip=false", "has no effect here"), ("model.name=x", "only model.reduction"), ("nonsense=1", "unknown key"),
     ("data.sampling=all", "choose"), ("top_k=0", "top_k=0: must be above 0"),
     ("data.mean=[0]", "three in all"), ("data.std=[0,1,1]", "above 0"),
     ("data.num_frames=0", "above 0|positive")],
)  # fmt: skip
def test_wrong_settings(tmp_path, override, message):
    path = save_brightness_model(tmp_path / "m.safetensors")
    with pytest.raises(StvideoError, match=message):
        load_predictor([f"checkpoint={path}", override])


def test_names_that_do_not_fit_the_head(tmp_path):
    model = stvideo.create_model("timesformer_tiny_patch16_224", num_classes=2, num_frames=4, img_size=32, patch_size=8)
    save_model(tmp_path / "m.safetensors", model, {"classes": ["only one"], "preprocess": preprocess(4, 32)})
    with pytest.raises(StvideoError, match="names 1 classes, but its head has 2"):
        load_predictor([f"checkpoint={tmp_path / 'm.safetensors'}"])


def test_an_official_file_brings_its_published_preprocessing(tmp_path):
    """The layout of the released TimeSformer files; 174 classes mean Something-Something: BGR, one frame a segment."""
    model = stvideo.create_model("timesformer_tiny_patch16_224", num_classes=174, num_frames=4, img_size=32,
                                 embed_dim=64, depth=2, num_heads=1).eval()  # fmt: skip
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    torch.save({"model_state": state}, tmp_path / "official.pyth")
    reader = load_predictor([f"checkpoint={tmp_path / 'official.pyth'}"])
    assert (reader.preprocessing.sampling, reader.preprocessing.color_order) == ("segment", "bgr")
    assert (reader.preprocessing.num_frames, reader.preprocessing.img_size, len(reader.model.classes)) == (4, 32, 174)
    clip = torch.rand(1, 3, 4, 32, 32)
    with torch.inference_mode():
        assert torch.allclose(torch.from_numpy(reader.run(clip)[0]), model(clip).softmax(-1)[0], atol=1e-6)
