"""Times as the container has them: late pictures, trims against FFmpeg's command line, odd rates, several streams."""

import shutil
import subprocess
from fractions import Fraction

import av
import numpy as np
import pytest

from stvideo.data.clips.preprocessing import Preprocessing
from stvideo.data.clips.reading import ClipReading
from stvideo.data.loading.datasets import build_dataset
from stvideo.data.video.decode import UnreadableVideo, open_video, read_frames
from stvideo.settings.schema import DataConfig
from tests.video_files import encode_video, frame_numbers, numbered_frames

FRAMES = 100
VARYING = [*(int(1000 * i / 60) for i in range(60)), *(1000 + 100 * i for i in range(40))]  # 60, then 10 fps


def with_late_picture(path, first=2.0, fps=25, **how):
    """``path`` with sound from 0 s on, and with 100 numbered frames from ``first`` seconds on."""
    plain = encode_video(path.with_name(f"plain {path.stem}.mp4"), numbered_frames(FRAMES), fps=fps, **how)
    with av.open(str(plain)) as source, av.open(str(path), "w") as target:
        given = source.streams.video[0]
        picture, sound = target.add_stream_from_template(given), target.add_stream("aac", rate=48000)
        sound.layout = "mono"
        for start in range(0, 7 * 48000, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 48000, start
            target.mux(sound.encode(frame))
        target.mux(sound.encode(None))
        for packet in source.demux(given):
            if packet.size:
                delay = round(first / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts + delay, packet.dts + delay, picture
                target.mux(packet)
    return path


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clock")
    for kind in ("mp4", "mkv", "ts"):
        with_late_picture(folder / f"late.{kind}", b_frames=2)
        encode_video(folder / f"alone.{kind}", numbered_frames(FRAMES), fps=25, b_frames=2)
        encode_video(folder / f"varying.{kind}", numbered_frames(FRAMES), times=VARYING, b_frames=2)
    return folder


KINDS = [f"{name}.{kind}" for name in ("late", "alone", "varying") for kind in ("mp4", "mkv", "ts")]


def test_a_late_picture_begins_where_the_container_says(root):
    for kind in ("mp4", "mkv", "ts"):
        with open_video(root / f"late.{kind}") as video:
            np.testing.assert_allclose(video.times, 2 + np.arange(FRAMES) / 25, atol=0.03)  # coded sound begins early
        with open_video(root / f"alone.{kind}") as video:
            np.testing.assert_allclose(video.times, np.arange(FRAMES) / 25, atol=1e-3)


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="FFmpeg's command line is not installed")
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("span", [(2.5, 3.5), (0.31, 4.4)])
def test_trims_are_those_of_ffmpeg(root, name, span):
    with open_video(root / name) as video:
        times = video.times
    expected = ffmpeg_frames(root / name, *span)
    within = np.flatnonzero((times >= span[0] - 1e-6) & (times < span[1] - 1e-6))
    # To a frame: it counts the end from the first frame cut, and its clock in microseconds; and by its release sound of
    # Matroska begins at 0 or where its coded frames do, 21 ms before.
    assert abs(expected[0] - within[0]) <= 1
    assert abs(expected[-1] - within[-1]) <= 1
    assert expected == list(range(expected[0], expected[-1] + 1))
    # every frame of the part is read, and none besides
    (root / "list.txt").write_text(f"{name} 0 {span[0]} {span[1]}\n")
    settings = {"num_frames": len(within), "sampling": "segment", "img_size": 64, "short_side": [64, 64]}
    reading = ClipReading(Preprocessing.from_config(DataConfig(**settings)))
    with open_video(root / name) as video:
        shown = frame_numbers(video.read(reading.indices(video, span)))
    assert shown[0] == within[0]
    assert within[-1] - 1 <= shown[-1] <= within[-1]
    dataset = build_dataset(DataConfig(root=str(root), val="list.txt", **settings), "val")
    assert dataset[0]["video"].shape == (3, len(within), 64, 64)


def ffmpeg_frames(path, start, end):
    """Numbers of the frames that FFmpeg's command line cuts out; by decoding, as its seeking in streams is coarse."""
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-ss", str(start), "-to", str(end), "-map", "0:v"]
    command += ["-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    if path.name.startswith("late"):  # streams that go nowhere do not count for FFmpeg's clock
        command += ["-map", "0:a", "-f", "null", "-"]
    pixels = subprocess.run(command, capture_output=True, check=True).stdout
    return frame_numbers(np.frombuffer(pixels, np.uint8).reshape(-1, 64, 96, 3))


def test_a_part_before_the_first_frame_is_named(root):
    reading = ClipReading(Preprocessing.from_config(DataConfig()))
    with open_video(root / "late.mp4") as video, pytest.raises(UnreadableVideo, match=r"begins at 2\.0. s.*up to 1\.5"):
        reading.indices(video, (0.5, 1.5))


@pytest.mark.parametrize("kind", ["mp4", "mkv", "ts"])
def test_a_varying_rate_is_sampled_by_time_and_a_constant_one_by_counting(root, kind):
    reading = ClipReading(Preprocessing.from_config(DataConfig(num_frames=8, stride=15, target_fps=30)))
    with open_video(root / f"varying.{kind}") as video:
        indices = reading.indices(video, (None, None))
        shown = video.times[indices]
        assert np.abs(np.diff(shown) - shown[-1] / 7 + shown[0] / 7).max() <= 0.11  # to a frame of the slow half
        part = reading.indices(video, (3.0, None))  # of one rate itself, which is not that of the whole file
        np.testing.assert_allclose(np.diff(video.times[part][:3]), 119 / 7 / 30, atol=0.11)
    with open_video(root / f"alone.{kind}") as video:
        counted = reading.preprocessing.indices(FRAMES, 25)
        assert reading.indices(video, (None, None)).tolist() == counted.tolist()


@pytest.mark.parametrize("fps", [Fraction(1, 10), 1, 30, 1200, 25_000, 100_000])
def test_rates_from_slow_to_fast(tmp_path, fps):
    path = tmp_path / "rate.mp4"
    with av.open(str(path), "w", options={"video_track_timescale": str(max(int(fps) * 10, 90_000))}) as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 96, 64, "yuv420p", 4_000_000
        packets = []
        for picture in numbered_frames(20):
            packets += stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24"))
        for number, packet in enumerate([*packets, *stream.encode(None)]):
            packet.time_base, packet.pts, packet.dts, packet.duration = 1 / Fraction(fps), number, number, 1
            container.mux(packet)
    with open_video(path) as video:
        assert video.fps == pytest.approx(float(fps), rel=1e-3)
        np.testing.assert_allclose(video.times, np.arange(20) / float(fps), rtol=1e-3)
        assert frame_numbers(video.read([3, 17])) == [3, 17]
        assert video.info.duration == pytest.approx(20 / float(fps), rel=1e-3)


@pytest.mark.parametrize("decoder", ["auto", "decord", "torchcodec"])
@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_of_several_streams_the_one_of_most_pixels_is_read(tmp_path, kind, decoder):
    if decoder != "auto":
        pytest.importorskip(decoder)
    files = [
        encode_video(tmp_path / f"{side}.mp4", numbered_frames(20, side, 2 * side)[order])
        for side, order in ((48, slice(None, None, -1)), (96, slice(None)))
    ]
    path = tmp_path / f"two.{kind}"
    with av.open(str(path), "w") as target, av.open(str(files[0])) as small, av.open(str(files[1])) as large:
        given = [small.streams.video[0], large.streams.video[0]]
        streams = [target.add_stream_from_template(stream) for stream in given]
        for source, stream in zip((small, large), streams, strict=True):
            for packet in source.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    target.mux(packet)
    with open_video(path, decoder) as video:
        assert (video.info.width, video.info.height) == (192, 96)
    assert frame_numbers(read_frames(path, [2, 11], decoder=decoder)) == [2, 11]
