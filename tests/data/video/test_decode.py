"""The right frame from every decoder on every kind of file, and a clear error for everything else."""

import io
import os
import random
import shutil
import time
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image

from stvideo.core.errors import StvideoError
from stvideo.data.video import video as video_module
from stvideo.data.video.decode import UnreadableVideo, Video, open_video, probe, read_frames
from stvideo.data.video.decord import decord_problem
from stvideo.data.video.torchcodec import torchcodec_problem
from tests.data.conftest import FRAMES, KINDS
from tests.video_files import (
    SHARED_VIDEOS,
    encode_video,
    frame_numbers,
    numbered_frames,
    set_display_matrix,
    write_audio,
)

# On which files the others are known to return wrong frames, to hang or to fail: PyAV reads these whatever is asked.
DECORD_ERRS = {
    *("h264_open_gop.mp4", "h264_open_gop.mkv", "h264.ts", "h264_b_frames.avi", "h264_stream.h264"),
    *("hevc_open_gop.mp4", "hevc.ts", "mpeg4_b_frames.avi", "mpeg4_b_frames.mkv", "mpeg2.mpg", "wmv2.wmv"),
    *("av1.mp4", "cut.mp4", "rotated_90.mkv", "rotated_90_open_gop.mp4"),
}
TORCHCODEC_ERRS = {
    *("h264.ts", "hevc.ts", "h264_b_frames.avi", "mpeg4_b_frames.avi", "mpeg4_b_frames.mkv", "mpeg2.mpg"),
    "h264_stream.h264",
}
ERRS = {"decord": DECORD_ERRS, "torchcodec": TORCHCODEC_ERRS, "pyav": set(), "auto": set()}

# Continuous integration installs torchcodec's libraries and sets the variable: its tests then fail instead of skipping.
needs_decord = pytest.mark.skipif(bool(decord_problem()), reason="decord has no wheel for this platform")
needs_torchcodec = pytest.mark.skipif(
    bool(torchcodec_problem()) and not os.environ.get("STVIDEO_REQUIRE_TORCHCODEC"), reason=str(torchcodec_problem())
)
OTHERS = [pytest.param("decord", marks=needs_decord), pytest.param("torchcodec", marks=needs_torchcodec)]
ALL = ["auto", "pyav", *OTHERS]


def upright(frames: torch.Tensor, name: str) -> torch.Tensor:
    """Frames turned back to how they were stored."""
    turns = int(name.split("_")[1].split(".")[0]) // 90 if name.startswith("rotated") else 0
    return torch.rot90(frames, -turns, (1, 2))


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("decoder", ALL)
def test_random_access_gives_the_frames_asked_for(encoded, name, decoder):
    draw = random.Random(name)
    with open_video(encoded / name, decoder) as video:
        assert video.num_frames == FRAMES
        for count in (1, 4, 4, 8, 8):
            indices = [draw.randrange(FRAMES) for _ in range(count)]  # in any order, repeats too
            assert frame_numbers(upright(video.read(indices), name)) == indices


@pytest.mark.parametrize("name", [*KINDS, "cut.mp4"])
@pytest.mark.parametrize("decoder", OTHERS)
def test_every_decoder_gives_the_same_pixels_and_errs_nowhere(encoded, name, decoder):
    with open_video(encoded / name, decoder) as video:
        count = video.num_frames
        indices = [0, count // 5, count // 3, count - 2, count - 1, 12, 13]
        frames = video.read(indices)
        assert (video.decoder == "pyav") == (name in ERRS[decoder])
    expected = read_frames(encoded / name, indices, decoder="pyav")
    if decoder == "decord":
        assert torch.equal(frames, expected)
    else:  # FFmpeg's colour conversion on this machine may be another version
        assert (frames.int() - expected.int()).abs().max() <= 4


@pytest.mark.parametrize("decoder", ALL)
def test_a_cut_without_encoding_shows_only_its_own_frames(encoded, decoder):
    with open_video(encoded / "cut.mp4", decoder) as video:
        assert frame_numbers(video.read(range(video.num_frames))) == list(range(17, 45))
        assert frame_numbers(video.read([20, 3, 27])) == [37, 20, 44]


@needs_decord
def test_decord_alone_refuses_a_cut_on_which_it_would_hang(encoded):
    with Video(encoded / "cut.mp4", "decord") as video, pytest.raises(UnreadableVideo, match=r"cut\.mp4.*hang"):
        video.read([0, 5])


@pytest.mark.parametrize(("name", "shape"), [("rotated_90.mp4", (96, 64)), ("rotated_180.mp4", (64, 96))])
def test_rotation_is_applied_as_displayed(encoded, name, shape):
    info = probe(encoded / name)
    assert (info.height, info.width) == shape
    assert read_frames(encoded / name, [5]).shape == (1, *shape, 3)
    plain = read_frames(encoded / "h264_closed_gop.mp4", [5])
    difference = upright(read_frames(encoded / name, [5]), name).float() - plain.float()
    assert difference.abs().mean() < 4


@pytest.mark.parametrize("decoder", ["auto", *OTHERS])
def test_a_mirrored_video_is_shown_mirrored(tmp_path, decoder):
    path = encode_video(tmp_path / "a.mp4", numbered_frames(5))
    plain = read_frames(path, range(5))
    for matrix, shown in (
        ((-1, 0, 0, 1), plain.flip(2)),  # left and right exchanged, as front cameras do
        ((1, 0, 0, -1), plain.flip(1)),
        ((0, 1, 1, 0), plain.transpose(1, 2)),
    ):
        copy = set_display_matrix(shutil.copy(path, tmp_path / "b.mp4"), *matrix)
        assert torch.equal(read_frames(copy, range(5), decoder=decoder), shown)
        info = probe(copy)
        assert (info.height, info.width) == tuple(shown.shape[1:3])


def test_frames_whose_size_changes_come_in_the_size_of_the_video(tmp_path):
    first = encode_video(tmp_path / "1.ts", numbered_frames(20))
    second = encode_video(tmp_path / "2.ts", numbered_frames(20, 128, 192))
    path = tmp_path / "both.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    frames = read_frames(path, range(40))
    assert frames.shape == (40, 64, 96, 3)
    assert frame_numbers(frames) == [*range(20), *range(20)]
    assert torch.equal(read_frames(path, [30, 5]), frames[[30, 5]])


@pytest.mark.parametrize("decoder", ["pyav", *OTHERS])
@pytest.mark.parametrize("name", ["h264_no_b_frames.mp4", "rotated_270.mp4", "vp9.webm"])
def test_size_sets_the_shorter_side_or_both(encoded, name, decoder):
    sideways = name.startswith("rotated")
    with open_video(encoded / name, decoder) as video:
        small = video.read([7, 30], 32)
        assert small.shape == ((2, 48, 32, 3) if sideways else (2, 32, 48, 3))
        assert video.read([7], (40, 56)).shape == (1, 40, 56, 3)
        large = video.read([7, 30]).permute(0, 3, 1, 2).float()
        shrunk = torch.nn.functional.interpolate(large, small.shape[1:3], mode="bilinear", antialias=True).permute(
            0, 2, 3, 1
        )
        assert (shrunk - small.float()).abs().mean() < 12  # the same picture, not another part of it


@needs_decord
def test_pyav_reads_on_where_decord_fails(tmp_path):
    path = encode_video(tmp_path / "narrow.mp4", numbered_frames(20, 32, 48), b_frames=0)
    with (
        Video(path, "decord") as video,  # decord cannot read videos of this width
        pytest.raises(UnreadableVideo, match=r"decord: .*size must exactly match"),
    ):
        video.read([3, 11])
    with open_video(path, "decord") as video:
        assert frame_numbers(video.read([3, 11])) == [3, 11]
        assert video.decoder == "pyav"


@needs_decord
def test_decord_serves_whatever_bridge_others_have_set(encoded):
    import decord

    expected = read_frames(encoded / "h264_closed_gop.mp4", [3, 11], decoder="decord")
    decord.bridge.set_bridge("torch")  # importing pytorchvideo.data does
    try:
        assert torch.equal(read_frames(encoded / "h264_closed_gop.mp4", [3, 11], decoder="decord"), expected)
    finally:
        decord.bridge.set_bridge("native")


def test_info_tells_what_the_file_is(encoded):
    info = probe(encoded / "h264_29.97.mp4")
    assert (info.num_frames, info.width, info.height, info.codec, info.rotation) == (60, 96, 64, "h264", 0)
    assert info.fps == pytest.approx(30000 / 1001)
    assert info.duration == pytest.approx(60 * 1001 / 30000)
    assert info.keyframes == 5


def test_one_opened_video_serves_several_reads(encoded):
    with open_video(encoded / "h264_open_gop.mp4") as video:
        assert video.info.num_frames == FRAMES  # decodes a frame, then starts over
        for indices in ([50, 55], [2], [30, 31, 32], [0]):
            assert frame_numbers(video.read(indices)) == indices


@pytest.mark.parametrize("indices", [[], [-1], [60], [3, 999]])
def test_frames_outside_the_video_are_refused(encoded, indices):
    with open_video(encoded / "h264_closed_gop.mp4") as video, pytest.raises(IndexError, match=r"60|59"):
        video.read(indices)


def test_unknown_decoder_names_the_right_ones(encoded):
    with pytest.raises(StvideoError, match="did you mean 'decord'"):
        open_video(encoded / "vp9.webm", "decor")


# --- what cannot be read -------------------------------------------------------------------------------------------


@pytest.fixture
def good(encoded):
    return (encoded / "h264_closed_gop.mp4").read_bytes()


def png() -> bytes:
    """A picture, which FFmpeg would take for a video of one frame."""
    content = io.BytesIO()
    Image.new("RGB", (8, 8)).save(content, "png")
    return content.getvalue()


def damaged_files(folder, good, encoded):
    """name -> (path, what the message says)"""
    files = {
        "zero.mp4": (b"", "empty"),
        "page.mp4": (b"\n<!DOCTYPE html><html><body>404</body></html>", "web page"),
        "noise.mp4": (np.random.default_rng(0).bytes(4000), "Invalid data|damaged|no frames"),
        "playlist.mp4": (b"#EXTM3U\n#EXTINF:1,\nhttp://localhost:9/a.ts\n", "web page"),
        "text.mp4": (b"a plain text\n" * 100, "no video file|Invalid data"),
        "text.txt": (b"a plain text\n" * 100, "no video file"),
        "pieces.mp4": (b"ffconcat version 1.0\nfile 'noise.mp4'\n", "no video file"),
        "image.mp4": (png(), "no video file"),
        "no_moov.mp4": (good[: len(good) // 2].replace(b"moov", b"free"), "Invalid data|moov"),
    }
    for name, (content, message) in files.items():
        (folder / name).write_bytes(content)
        yield folder / name, message
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe.mp4")  # opening it would wait for a writer for ever
        yield folder / "pipe.mp4", "pipe"
    (folder / "folder.mp4").mkdir()
    yield folder / "folder.mp4", "folder"
    yield folder / "missing.mp4", "no such file"
    yield write_audio(folder / "audio.mp4"), "no video stream"


def test_what_is_no_video_is_named_with_the_reason(tmp_path, good, encoded):
    for path, message in damaged_files(tmp_path, good, encoded):
        decoders = ["auto", "pyav"] + ["decord"] * (not decord_problem()) + ["torchcodec"] * (not torchcodec_problem())
        for decoder in decoders:
            with pytest.raises(UnreadableVideo, match=f"{path.name}.*({message})") as raised:
                read_frames(path, [0], decoder=decoder)
            assert "\n" not in str(raised.value)
            assert raised.value.path == str(path)


@pytest.mark.parametrize("share", [0.35, 0.6, 0.9])
@pytest.mark.parametrize("name", ["h264_closed_gop.mp4", "vp8.webm", "vp9.webm", "mpeg4.avi", "hevc_open_gop.mp4"])
def test_a_truncated_file_gives_right_frames_or_an_error(encoded, tmp_path, name, share):
    content = (encoded / name).read_bytes()
    path = tmp_path / f"short{encoded.joinpath(name).suffix}"
    path.write_bytes(content[: int(share * len(content))])
    try:
        with open_video(path) as video:
            indices = list(range(0, video.num_frames, 5))
            assert frame_numbers(video.read(indices)) == indices
    except UnreadableVideo as error:
        assert path.name in str(error)


def test_a_fast_start_file_cut_short_still_serves_its_beginning(tmp_path):
    path = encode_video(tmp_path / "whole.mkv", numbered_frames(60), b_frames=2)
    short = tmp_path / "short.mkv"
    short.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with open_video(short) as video:
        assert 10 < video.num_frames < 60
        assert frame_numbers(video.read([0, 5, 9])) == [0, 5, 9]


def test_flipped_bits_never_hang_or_crash(encoded, tmp_path):
    generator = np.random.default_rng(0)
    outcomes = {"read": 0, "refused": 0}
    for number in range(40):
        source = encoded / ["h264_closed_gop.mp4", "h264_no_b_frames.mp4", "vp9.webm", "mpeg4.avi"][number % 4]
        content = np.frombuffer(source.read_bytes(), dtype=np.uint8).copy()
        places = generator.integers(0, len(content), 20)
        content[places] ^= generator.integers(1, 256, 20, dtype=np.uint8)
        path = tmp_path / f"{number}{source.suffix}"
        path.write_bytes(content.tobytes())
        try:
            with open_video(path, timeout=20) as video:
                assert video.read([0, video.num_frames // 2]).dtype == torch.uint8
            outcomes["read"] += 1
        except UnreadableVideo as error:
            assert path.name in str(error)
            outcomes["refused"] += 1
    assert outcomes["refused"] > 0


def test_no_permission_is_one_line(encoded, tmp_path):
    path = shutil.copy(encoded / "vp9.webm", tmp_path / "locked.webm")
    path.chmod(0)
    try:
        path.open("rb").close()
        pytest.skip("this user may read everything")
    except PermissionError:
        pass
    with pytest.raises(UnreadableVideo, match=r"locked\.webm.*Permission denied"):
        probe(path)


@pytest.mark.parametrize("decoder", ["pyav", OTHERS[0]])
def test_a_slow_decode_is_stopped_and_named(encoded, decoder):
    late = pytest.raises(UnreadableVideo, match=r"h264_closed_gop\.mp4.*data\.timeout")
    with open_video(encoded / "h264_closed_gop.mp4", decoder, timeout=1e-6) as video, late:
        video.read([0, 59])


@pytest.mark.parametrize("hanging", ["open_container", "PyavReader"])
def test_a_hanging_decoder_is_given_up_on_and_named(encoded, hanging, monkeypatch):
    monkeypatch.setattr(video_module, "GRACE", 0.2)
    monkeypatch.setattr(video_module, hanging, lambda *_: time.sleep(60))
    with (
        pytest.raises(UnreadableVideo, match=r"vp9\.webm.*did not finish in 0\.1 s \(data\.timeout\)"),
        open_video(encoded / "vp9.webm", timeout=0.1) as video,
    ):
        video.read([0, 59])


# name -> frames, frames per second, width, height
REAL_VIDEOS = {
    "arm_wrestling.mp4": (280, 28, 340, 256),
    "kinetics_300f.mp4": (300, 30, 340, 256),
    "kinetics_32f.mp4": (32, 30, 340, 256),
    "flipping_a_pancake.mkv": (310, 30, 426, 240),
    "nasa_13013.mp4": (390, 29.97, 480, 270),
    "nasa_13013_rotated.mp4": (17, 29.97, 270, 480),
    "video_90.mov": (3, 30, 320, 568),
    "testsrc2_vp8.webm": (30, 30, 1280, 720),
    "testsrc2_vp9.webm": (30, 30, 1280, 720),
    "testsrc2_odd_height_and_width_mpeg2.mp4": (10, 25, 121, 81),
    "h265_video.mp4": (10, 10, 128, 128),
}


@pytest.mark.skipif(not SHARED_VIDEOS.is_dir(), reason="the shared test videos are not here")
class TestRealVideos:
    @pytest.mark.parametrize("name", REAL_VIDEOS)
    def test_length_rate_and_size(self, name):
        info = probe(SHARED_VIDEOS / name)
        expected = REAL_VIDEOS[name]
        assert (info.num_frames, info.width, info.height) == (expected[0], *expected[2:])
        assert info.fps == pytest.approx(expected[1], abs=0.01)

    @pytest.mark.parametrize("name", REAL_VIDEOS)
    def test_random_access_equals_decoding_in_order(self, name):
        import av

        with av.open(str(SHARED_VIDEOS / name)) as container:
            stream = container.streams.best("video")
            frames = [frame.to_ndarray(format="rgb24") for frame in islice(container.decode(stream), 100)]
        turns = probe(SHARED_VIDEOS / name).rotation // 90
        frames = [np.rot90(frame, turns) for frame in frames]
        indices = sorted({0, len(frames) // 3, len(frames) // 2, len(frames) - 1})
        for decoder in ("auto", "pyav"):
            got = read_frames(SHARED_VIDEOS / name, indices, decoder=decoder)
            assert all(np.array_equal(got[n], frames[index]) for n, index in enumerate(indices))
        others = ["decord"] * (not decord_problem()) + ["torchcodec"] * (not torchcodec_problem())
        for decoder in others:  # each with an FFmpeg of its own, whose colour conversion may differ
            got = read_frames(SHARED_VIDEOS / name, indices, decoder=decoder).numpy()
            for frame, index in zip(got, indices, strict=True):
                near = {n: differ(frame, frames[n]) for n in (index - 1, index, index + 1) if 0 <= n < len(frames)}
                assert near[index] == min(near.values()) < 5

    def test_broken_packets_are_refused(self):
        for decoder in ("auto", "pyav"):
            with pytest.raises(UnreadableVideo, match=r"corrupted\.mp4"):
                read_frames(SHARED_VIDEOS / "corrupted.mp4", list(range(0, 50, 7)), decoder=decoder)

    @pytest.mark.parametrize("decoder", OTHERS)
    def test_broken_packets_never_hang(self, decoder):
        try:
            frames = read_frames(SHARED_VIDEOS / "corrupted.mp4", list(range(0, 50, 7)), decoder=decoder)
            assert frames.shape == (8, 720, 1280, 3)
        except UnreadableVideo as error:
            assert "corrupted.mp4" in str(error)


def differ(first: np.ndarray, second: np.ndarray) -> float:
    """Mean absolute difference."""
    return float(np.abs(first.astype(np.int16) - second).mean())
