"""The right frame from every decoder on every kind of file, and a clear error for everything else."""

import random
import shutil
from itertools import islice

import numpy as np
import pytest
import torch

from stvideo.data.decode import UnreadableVideo, decord_installed, open_video, probe, read_frames, torchcodec_problem
from stvideo.errors import StvideoError
from tests.data.conftest import FRAMES, KINDS
from tests.video_files import SHARED_VIDEOS, encode_video, frame_numbers, numbered_frames, write_audio

# What decord is known to get wrong or to refuse; `auto` has to go round it.
DECORD_FAILS = {
    *("h264_open_gop.mp4", "h264_open_gop.mkv", "h264.ts", "hevc_open_gop.mp4"),
    *("mpeg4_b_frames.avi", "mpeg2.mpg", "av1.mp4"),
}

needs_decord = pytest.mark.skipif(not decord_installed(), reason="decord has no wheel for this platform")


def upright(frames: torch.Tensor, name: str) -> torch.Tensor:
    """Frames turned back to how they were stored."""
    turns = int(name.split("_")[1].split(".")[0]) // 90 if name.startswith("rotated") else 0
    return torch.rot90(frames, -turns, (1, 2))


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("decoder", ["auto", "pyav"])
def test_random_access_gives_the_frames_asked_for(encoded, name, decoder):
    draw = random.Random(name)
    with open_video(encoded / name, decoder) as video:
        assert video.num_frames == FRAMES
        for count in (1, 4, 4, 8, 8):
            indices = [draw.randrange(FRAMES) for _ in range(count)]  # in any order, repeats too
            assert frame_numbers(upright(video.read(indices), name)) == indices


@needs_decord
@pytest.mark.parametrize("name", sorted(KINDS.keys() - DECORD_FAILS))
def test_decord_agrees_with_pyav_to_the_last_bit(encoded, name):
    indices = [0, 11, 12, 13, 40, 59]
    by_decord = read_frames(encoded / name, indices, decoder="decord")
    assert frame_numbers(upright(by_decord, name)) == indices
    assert torch.equal(by_decord, read_frames(encoded / name, indices, decoder="pyav"))


@pytest.mark.parametrize("name", [*KINDS, "cut.mp4"])
def test_torchcodec_agrees_with_pyav(encoded, name):
    problem = torchcodec_problem()
    if problem:
        pytest.skip(problem)
    count = probe(encoded / name).num_frames
    indices = [0, count // 3, count - 1]
    by_torchcodec = read_frames(encoded / name, indices, decoder="torchcodec")
    assert (by_torchcodec.int() - read_frames(encoded / name, indices, decoder="pyav").int()).abs().max() <= 4


@pytest.mark.parametrize("name", sorted(KINDS))
def test_auto_takes_decord_only_where_it_is_right(encoded, name):
    with open_video(encoded / name) as video:
        assert not (video.decoder == "decord" and name in DECORD_FAILS)


@needs_decord
def test_auto_takes_decord_for_plain_h264(encoded):
    with open_video(encoded / "h264_no_b_frames.mp4") as video:
        assert video.decoder == "decord"


def test_a_cut_without_encoding_shows_only_its_own_frames(encoded):
    with open_video(encoded / "cut.mp4") as video:
        assert video.decoder == "pyav"
        assert frame_numbers(video.read(range(video.num_frames))) == list(range(17, 45))
        assert frame_numbers(video.read([20, 3, 27])) == [37, 20, 44]


@needs_decord
def test_decord_refuses_a_cut_on_which_it_would_hang(encoded):
    with pytest.raises(UnreadableVideo, match=r"cut\.mp4.*data\.decoder=auto"):
        read_frames(encoded / "cut.mp4", [0, 5], decoder="decord")


@pytest.mark.parametrize(("name", "shape"), [("rotated_90.mp4", (96, 64)), ("rotated_180.mp4", (64, 96))])
def test_rotation_is_applied_as_displayed(encoded, name, shape):
    info = probe(encoded / name)
    assert (info.height, info.width) == shape
    assert read_frames(encoded / name, [5]).shape == (1, *shape, 3)
    plain = read_frames(encoded / "h264_closed_gop.mp4", [5])
    difference = upright(read_frames(encoded / name, [5]), name).float() - plain.float()
    assert difference.abs().mean() < 4


@pytest.mark.parametrize("decoder", ["pyav", pytest.param("decord", marks=needs_decord)])
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
def test_auto_goes_on_with_pyav_where_decord_fails(tmp_path):
    path = encode_video(tmp_path / "narrow.mp4", numbered_frames(20, 32, 48), b_frames=0)
    with pytest.raises(UnreadableVideo, match=r"decord: .*size must exactly match"):
        read_frames(path, [3, 11], decoder="decord")  # decord cannot read videos of this width
    assert frame_numbers(read_frames(path, [3, 11])) == [3, 11]


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


def damaged_files(folder, good, encoded):
    """name -> (path, what the message says)"""
    files = {
        "zero.mp4": (b"", "empty"),
        "page.mp4": (b"\n<!DOCTYPE html><html><body>404</body></html>", "web page"),
        "noise.mp4": (np.random.default_rng(0).bytes(4000), "Invalid data|damaged|no frames"),
        "playlist.mp4": (b"#EXTM3U\n#EXTINF:1,\nhttp://localhost:9/a.ts\n", "web page|playlist"),
        "no_moov.mp4": (good[: len(good) // 2].replace(b"moov", b"free"), "Invalid data|moov"),
    }
    for name, (content, message) in files.items():
        (folder / name).write_bytes(content)
        yield folder / name, message
    (folder / "folder.mp4").mkdir()
    yield folder / "folder.mp4", "folder"
    yield folder / "missing.mp4", "no such file"
    yield write_audio(folder / "audio.mp4"), "no video stream"


def test_what_is_no_video_is_named_with_the_reason(tmp_path, good, encoded):
    for path, message in damaged_files(tmp_path, good, encoded):
        for decoder in ("auto", "pyav", "decord"):
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


@pytest.mark.parametrize("decoder", ["pyav", pytest.param("decord", marks=needs_decord)])
def test_a_slow_decode_is_stopped_and_named(encoded, decoder):
    late = pytest.raises(UnreadableVideo, match=r"h264_closed_gop\.mp4.*data\.timeout")
    with open_video(encoded / "h264_closed_gop.mp4", decoder, timeout=1e-6) as video, late:
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
        indices = sorted({0, len(frames) // 3, len(frames) // 2, len(frames) - 1})
        for decoder in ("auto", "pyav"):
            got = read_frames(SHARED_VIDEOS / name, indices, decoder=decoder)
            for index, frame in zip(indices, got, strict=True):
                assert np.array_equal(frame.numpy(), np.rot90(frames[index], turns))

    def test_broken_packets_are_refused(self):
        with pytest.raises(UnreadableVideo, match=r"corrupted\.mp4"):
            read_frames(SHARED_VIDEOS / "corrupted.mp4", list(range(0, 50, 7)))
