"""Streams: a file played in real time stands in for a camera."""

import json
from pathlib import Path

import numpy as np
import pytest

from stvideo.core.errors import StvideoError
from stvideo.inference.predictor import load_predictor
from stvideo.inference.streaming import LiveFrame, LiveSource, is_stream, pick
from stvideo.predict import main
from tests.painted_videos import painted_frames, write_video
from tests.steered import save_random_model


@pytest.fixture
def clip(tmp_path) -> Path:
    frames = painted_frames(20, 96, 64, (0, 1, 1))
    for number, frame in enumerate(frames):
        frame[:] = 10 * number
    return write_video(tmp_path / "clip.mp4", frames, fps=40)


@pytest.fixture
def patient(monkeypatch) -> None:
    """No frame counts as late: the machine may be busy."""
    monkeypatch.setattr("stvideo.inference.streaming.LATE", 600.0)


def test_the_newest_frames_in_their_order(clip, patient):
    seen, after = [], float("-inf")
    with LiveSource(f"stream:{clip}", span=0.2, short_side=32) as live:
        while frames := live.newest(after):
            times = [frame.seconds for frame in frames]
            assert times == sorted(times) and times[-1] - times[0] <= 0.2 + 1e-6
            assert all(frame.pixels.shape == (32, 48, 3) for frame in frames)
            for frame in frames:  # the pixels are those of that moment
                assert abs(float(frame.pixels.mean()) - 10 * round(frame.seconds * 40)) < 6
            after = times[-1]
            seen.append(after)
    assert seen == sorted(set(seen)) and seen[-1] == pytest.approx(19 / 40)
    assert live.newest(after) == [] and live.problem is None


def test_late_frames_are_dropped_before_their_pixels_are_made(clip, monkeypatch):
    """A reader that cannot keep up skips frames instead of falling behind."""
    import time

    original = LiveSource._pixels

    def slow(self, frame):
        time.sleep(0.2)
        return original(self, frame)

    monkeypatch.setattr(LiveSource, "_pixels", slow)
    kept = set()
    with LiveSource(f"stream:{clip}", span=10, short_side=32) as live:
        after = float("-inf")
        while frames := live.newest(after):
            after = frames[-1].seconds
            kept |= {frame.seconds for frame in frames}
    assert live.dropped > 0 and live.dropped + len(kept) == 20


def test_pick_spreads_over_the_span_and_repeats_while_there_is_too_little():
    frames = [LiveFrame(i / 10, 0.0, np.zeros((1, 1, 3), np.uint8)) for i in range(11)]
    assert [f.seconds for f in pick(frames, 0.9, 4)] == pytest.approx([0.1, 0.4, 0.7, 1.0])
    assert [f.seconds for f in pick(frames[:2], 0.9, 4)] == pytest.approx([0.0, 0.0, 0.0, 0.1])
    assert [f.seconds for f in pick(frames, 0.9, 1)] == [1.0]


def test_the_command_prints_lag_and_drops(tmp_path, clip, capsys, patient):
    model = save_random_model(tmp_path / "m.safetensors", {"evit": dict(keep_rate=0.5, layers=(1,))})
    assert main([f"stream:{clip}", f"checkpoint={model}", "--json", "top_k=1"]) == 0
    captured = capsys.readouterr()
    lines = [json.loads(line) for line in captured.out.splitlines()]
    assert lines and all(line["lag"] >= 0 and len(line["top"]) == 1 for line in lines)
    assert lines[-1]["seconds"] == pytest.approx(19 / 40, abs=1e-3)
    assert f"{len(lines)} clips classified, {lines[-1]['dropped']} late frames dropped" in captured.err
    assert main([f"stream:{clip}", f"checkpoint={model}", "top_k=1"]) == 0
    assert "(lag " in capsys.readouterr().out


@pytest.mark.parametrize(
    "source,message",
    [("camera:77", "no such camera"), ("stream:none.mp4", "no such stream"), ("stream:", "name a camera"),
     ("stream:TEXT", "cannot be opened|no video")],
)  # fmt: skip
def test_no_such_source_is_one_line(tmp_path, source, message):
    (tmp_path / "text.mp4").write_text("no video")
    model = save_random_model(tmp_path / "m.safetensors")
    source = source.replace("TEXT", str(tmp_path / "text.mp4"))
    assert is_stream(source)
    with pytest.raises(StvideoError, match=message) as caught:
        main([source, f"checkpoint={model}"])
    assert "\n" not in str(caught.value)


def test_a_file_called_like_a_camera_is_still_a_file():
    assert not is_stream("camera.mp4") and not is_stream("./camera:0")


def test_colour_order_reaches_the_model(tmp_path, clip, monkeypatch):
    """BGR models see swapped channels from a stream as they do from a file."""
    model = save_random_model(tmp_path / "m.safetensors")
    predictor = load_predictor([f"checkpoint={model}", "data.color_order=bgr"])
    red = painted_frames(20, 64, 48, (0, 0, 0))
    for frame in red:
        frame[:] = (250, 10, 10)
    path = write_video(tmp_path / "red.mp4", red, fps=40)
    seen = []
    monkeypatch.setattr(predictor, "run", lambda clip: (seen.append(clip), (np.ones(3) / 3, None))[1])
    from stvideo.inference.streaming import watch

    watch(f"stream:{path}", predictor, as_json=True)
    channels = seen[0].mean(dim=(0, 2, 3, 4))
    assert channels[2] > 0.5 and channels[0] < -0.5
