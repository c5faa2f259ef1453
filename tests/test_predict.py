"""The predict command: what it prints, what it writes, how it ends."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from stvideo.core.errors import StvideoError
from stvideo.data.clips.transforms import normalize
from stvideo.data.loading.datasets import build_dataset
from stvideo.inference.predictor import load_predictor
from stvideo.predict import main
from stvideo.settings.schema import DataConfig
from tests.painted_videos import painted_frames, write_video
from tests.steered import CLASSES, preprocess, save_random_model
from tests.video_files import encode_video, numbered_frames


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_random_model(
        tmp_path_factory.mktemp("model") / "m.safetensors", {"evit": dict(keep_rate=0.5, layers=(1, 2))}
    )


@pytest.fixture
def clips(tmp_path, monkeypatch) -> Path:
    """A folder with two videos of 30 frames; it is the working folder."""
    (tmp_path / "clips").mkdir()
    for number, name in enumerate(("one.mp4", "two words.mp4")):
        write_video(tmp_path / "clips" / name, painted_frames(30, 96, 64, (10 + number, 1, 2)))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "clips"


def json_lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_bars_for_people(clips, model, capsys):
    assert main(["clips", f"checkpoint={model}", "top_k=2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "clips/one.mp4  (1.0 s, 1x3 views)" and lines[3].startswith("clips/two words.mp4")
    assert len(lines) == 6 and lines[1].rstrip().endswith("%") and any(name in lines[1] for name in CLASSES)


@pytest.mark.parametrize("views", ["1x1", "2x3"])
def test_json_equals_the_average_over_the_views_of_an_evaluation(clips, model, capsys, views):
    main(["clips/one.mp4", f"checkpoint={model}", "--json", f"predict.views={views}"])
    (found,) = json_lines(capsys.readouterr().out)
    settings = preprocess(4, 32)
    dataset = build_dataset(
        DataConfig(root=str(clips.parent), val=str(clips.parent), **settings), split="val", views=views
    )
    views_of_one = [i for i in range(len(dataset)) if dataset.path(int(dataset[i]["index"])).name == "one.mp4"]
    batch = torch.stack([dataset[i]["video"] for i in views_of_one])
    assert len(batch) == int(views[0]) * int(views[2])
    network = load_predictor([f"checkpoint={model}"]).model
    with torch.inference_mode():
        expected = network(normalize(batch, settings["mean"], settings["std"])).softmax(-1).mean(0)
    top = {entry["class"]: entry["probability"] for entry in found["top"]}
    assert top == {name: pytest.approx(float(p), abs=2e-6) for name, p in zip(CLASSES, expected, strict=True)}
    assert [e["probability"] for e in found["top"]] == sorted(top.values(), reverse=True)
    assert found["video"] == "clips/one.mp4" and found["views"] == views and found["seconds"] == 1.0


def test_a_list_on_standard_input(clips, model, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"clips/two words.mp4\nclips/one.mp4\n")))
    assert main(["-", f"checkpoint={model}", "--json", "predict.views=1x1"]) == 0
    found = json_lines(capsys.readouterr().out)
    assert [line["video"] for line in found] == ["clips/two words.mp4", "clips/one.mp4"]


def test_names_that_no_terminal_can_show(clips, model):
    """A line end, a byte that is no character, and an escape sequence: a line each, and no failure."""
    odd = os.fsencode(clips) + b"/new\nline \xff\x1b[31m.mp4"
    (clips / "one.mp4").rename(os.fsdecode(odd))
    command = [sys.executable, "-m", "stvideo.predict", odd, f"checkpoint={model}", "predict.views=1x1", "top_k=1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONUTF8": "1"})
    assert done.returncode == 0, done.stderr
    name, best = done.stdout.splitlines()
    assert r"new\nline \udcff\x1b[31m.mp4" in name and best.endswith("%")


def test_a_bad_video_among_good_ones(clips, model, capsys):
    (clips / "bad.mp4").write_bytes(b"\x00" * 100)
    assert main(["clips", f"checkpoint={model}", "--json", "predict.views=1x1"]) == 1
    captured = capsys.readouterr()
    assert len(json_lines(captured.out)) == 2
    assert "bad.mp4" in captured.err and "2 of 3 videos predicted, 1 failed" in captured.err


def test_short_and_single_frame_videos_say_so(clips, model, capsys):
    write_video(clips / "short.mp4", painted_frames(1, 64, 48, (0, 1, 1)))
    assert main(["clips/short.mp4", f"checkpoint={model}"]) == 0
    assert "shorter than a clip: frames repeat" in capsys.readouterr().out


def test_timeline(clips, model, capsys):
    arguments = ["clips/one.mp4", f"checkpoint={model}", "--timeline", "output=out", "top_k=2"]
    assert main(arguments) == 0
    assert "one_timeline.json" in capsys.readouterr().out
    timeline = json.loads(Path("out/one_timeline.json").read_text())
    windows = timeline["windows"]
    span = 8 / 30  # 4 frames at stride 2
    assert len(windows) == 7  # 30 frames, windows of 8, half overlapping, the last one ending with the video
    starts = [w["start"] for w in windows]
    assert starts == [pytest.approx(min(4 * i, 22) / 30, abs=1e-3) for i in range(7)]
    assert all(w["end"] - w["start"] == pytest.approx(span, abs=2e-3) and len(w["top"]) == 2 for w in windows)
    assert windows[0]["frames"] == [0, 2, 4, 7] and windows[-1]["frames"][-1] == 29
    assert Image.open("out/one_timeline.png").width > 1000
    assert sorted(p.name for p in Path("out").iterdir()) == ["one_timeline.json", "one_timeline.png"]


def test_times_are_those_of_the_frames_where_the_rate_varies(clips, model, capsys):
    times = [*range(0, 800, 100), *range(60_000, 61_600, 200)]  # 8 frames in the first second, 8 after a minute
    encode_video(clips / "varies.mkv", numbered_frames(16), times=times)
    arguments = ["clips/varies.mkv", f"checkpoint={model}"]
    assert main([*arguments, "--json"]) == 0
    assert json_lines(capsys.readouterr().out)[0]["seconds"] == pytest.approx(61.4, abs=0.1)
    assert main([*arguments, "--timeline", "output=out"]) == 0
    timeline = json.loads(Path("out/varies_timeline.json").read_text())
    assert timeline["seconds"] == pytest.approx(61.4, abs=0.1)
    spans = [(w["start"], w["end"]) for w in timeline["windows"]]
    assert spans[0] == (0, 60) and spans[-1] == (60, timeline["seconds"])


def test_timeline_windows_of_a_model_that_samples_segments(clips, model, capsys):
    settings = ["data.sampling=segment", "predict.window_seconds=0.5", "predict.hop_seconds=0.5"]
    main(["clips/one.mp4", f"checkpoint={model}", "--timeline", "output=out", *settings])
    first, second = json.loads(Path("out/one_timeline.json").read_text())["windows"]
    assert max(first["frames"]) < 15 <= min(second["frames"]) and (second["start"], second["end"]) == (0.5, 1.0)


@pytest.mark.parametrize("kind,shape", [("clip", (32,)), ("frame", (4, 32)), ("token", None), ("map", (4, 4, 4, 32))])
@pytest.mark.parametrize("file_format", ["npz", "safetensors"])
def test_features(clips, model, kind, shape, file_format):
    settings = [f"predict.features={kind}", f"predict.feature_format={file_format}", "output=out"]
    assert main(["clips/one.mp4", f"checkpoint={model}", *settings]) == 0
    path = Path("out") / f"one_features.{file_format}"
    arrays = dict(np.load(path)) if file_format == "npz" else load_file(path)
    if shape is not None:
        assert arrays["feature"].shape == shape
    else:  # every token carries some patch, and every assignment names a token
        assert sorted(set(arrays["assign"].ravel()) - {-1}) == list(range(len(arrays["feature"])))
    assert arrays["feature"].dtype == np.float32 and np.isfinite(arrays["feature"]).all()
    assert arrays["frames"].tolist() == [11, 13, 15, 18]


@pytest.mark.parametrize("kind,shape", [("clip", (7, 32)), ("map", (7, 4, 4, 4, 32))])
def test_features_of_every_window(clips, model, kind, shape, capsys):
    arguments = ["clips/one.mp4", f"checkpoint={model}", "--timeline", "output=out"]
    assert main(arguments) == 0
    windows = json.loads(Path("out/one_timeline.json").read_text())["windows"]
    assert main([*arguments, f"predict.features={kind}"]) == 0
    arrays = dict(np.load("out/one_features.npz"))
    assert arrays["feature"].shape == shape
    assert arrays["frames"].tolist() == [w["frames"] for w in windows]
    assert arrays["seconds"] == pytest.approx(np.array([[w["start"], w["end"]] for w in windows]), abs=1e-3)


@pytest.mark.parametrize(
    "arguments,message",
    [
        ([], "no video given"),
        (["--jsno", "clips"], "did you mean '--json'"),
        (["clips", "predict.views=three"], "CLIPSxCROPS"),
        (["clips", "predict.views=ssv2-2x3"], "predict.views=ssv2-2x3 is a protocol of data.sampling=segment"),
        (["clips", "predict.features=cilp"], "did you mean 'clip'"),
        (["clips", "predict.features=clip", "predict.feature_format=csv"], "choose from npz, safetensors"),
        (["clips", "predict.features=clip"], "output= is missing"),
        (["clips", "--timeline"], "output= is missing"),
        (["clips", "--timeline", "predict.hop_seconds=0", "output=out"], "above 0"),
        (["clips", "--timeline", "predict.window_seconds=.inf", "output=out"], "above 0, and finite"),
        (["camera:0", "clips"], "alone"),
        (["camera:0", "--timeline"], "has no end"),
        (["none.mp4"], "none.mp4"),
    ],
)
def test_mistakes_are_one_clear_line(clips, model, arguments, message):
    with pytest.raises(StvideoError, match=message) as caught:
        main([*arguments, f"checkpoint={model}"])
    assert "\n" not in str(caught.value)


def test_audio_without_pictures_is_one_line(tmp_path, model):
    import wave

    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(b"\x00\x01" * 4000)
    with pytest.raises(StvideoError, match=r"sound\.wav: unreadable video"):
        main([str(tmp_path / "sound.wav"), f"checkpoint={model}"])


def test_no_training_code_is_imported(clips, model):
    code = (
        "import sys; from stvideo.predict import main; main(sys.argv[1:])\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('accelerate', 'timm', 'tensorboard')"
        " or name.startswith(('stvideo.training', 'stvideo.evaluation', 'torch.distributed.fsdp'))])"
    )
    command = [sys.executable, "-c", code, str(clips / "one.mp4"), f"checkpoint={model}", "predict.views=1x1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "[]", done
