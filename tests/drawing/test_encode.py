"""The encoded file: H.264, 4:2:0, even size, the given rate, and the frames that were written."""

from fractions import Fraction

import av
import numpy as np
import pytest

from stvideo.core.errors import StvideoError
from stvideo.drawing.encode import video_writer


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
    with video_writer(path, fps, width, height) as write:
        for number in range(5):
            write(gradient(height, width, number))
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
    with pytest.raises(RuntimeError), video_writer(tmp_path / "out.mp4", 25, 32, 32) as write:
        write(gradient(32, 32, 0))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    path = tmp_path / "no" / "out.mp4"
    with pytest.raises(StvideoError, match=r"no/out\.mp4: cannot be written"), video_writer(path, 25, 32, 32) as write:
        write(gradient(32, 32, 0))


def test_an_error_of_the_reader_is_not_one_of_the_file(tmp_path):
    with pytest.raises(StvideoError, match=r"^broken$"), video_writer(tmp_path / "out.mp4", 25, 32, 32) as write:
        write(gradient(32, 32, 0))
        raise StvideoError("broken")
    assert list(tmp_path.iterdir()) == []
