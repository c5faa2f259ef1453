"""The encoded file: H.264, 4:2:0, even size, the given rate, and the frames that were written."""

from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image, ImageSequence

from stvideo.core.errors import StvideoError
from stvideo.drawing.encode import GifWriter, VideoWriter


def gradient(height: int, width: int, number: int) -> np.ndarray:
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(0, 255, width).astype(np.uint8)
    image[..., 1] = np.linspace(0, 255, height).astype(np.uint8)[:, None]
    image[..., 2] = 20 * number
    return image


@pytest.mark.parametrize("height,width", [(48, 64), (81, 121), (1, 1)])
@pytest.mark.parametrize("fps", [25, Fraction(30000, 1001), 29.97002997])
def test_frames_come_back(tmp_path, height, width, fps):
    path = tmp_path / "out.mp4"
    with VideoWriter(path, fps, width, height) as writer:
        for number in range(5):
            writer.write(gradient(height, width, number))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.codec_context.pix_fmt == "yuv420p"
        assert (stream.height, stream.width) == (height + height % 2, width + width % 2)
        assert stream.average_rate == Fraction(fps).limit_denominator(1001)
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(decoded) == 5
    for number, frame in enumerate(decoded):
        assert np.abs(frame[:height, :width].astype(int) - gradient(height, width, number)).mean() < 12
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]


def test_a_failure_leaves_nothing_behind(tmp_path):
    with pytest.raises(RuntimeError), VideoWriter(tmp_path / "out.mp4", 25, 32, 32) as writer:
        writer.write(gradient(32, 32, 0))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(StvideoError, match=r"no/out\.mp4: cannot be written"):
        VideoWriter(tmp_path / "no" / "out.mp4", 25, 32, 32)


@pytest.mark.parametrize("count,fps", [(1, 25), (30, 30), (400, 24), (7, 3)])
def test_gif_plays_as_long_as_the_video(tmp_path, count, fps):
    with GifWriter(tmp_path / "out.gif", fps, count) as writer:
        for number in range(count):
            frame = np.full((60, 900, 3), number * 255 // count, np.uint8)
            writer.write(frame)
    with Image.open(tmp_path / "out.gif") as image:
        assert image.size == (400, 27) and image.n_frames <= 150
        total, levels = 0, []
        for frame in ImageSequence.Iterator(image):
            total += frame.info["duration"]
            levels.append(int(np.asarray(frame.convert("RGB")).mean()))
    assert total == pytest.approx(1000 * count / fps, abs=25)
    assert levels == sorted(levels)
    assert [p.name for p in tmp_path.iterdir()] == ["out.gif"]
