"""Odd files give the frames of plain sequential decoding, and verify says of each what is odd about it."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from stvideo.core.errors import StvideoError
from stvideo.data.lists.manifest import VideoRow
from stvideo.data.video.decode import UnreadableVideo, open_video
from stvideo.data.video.pyav import PyavReader
from stvideo.preparation.inspection import Inspection, inspect
from stvideo.preparation.resizing import Recipe, resize
from tests.data.video.odd_files import (
    decoded_in_order,
    ffmpeg,
    from_numbered,
    remuxed,
    with_exif_pictures,
    with_lying_key_frames,
)
from tests.video_files import encode_video, frame_numbers, hide_the_start, numbered_frames, write_audio


def verdict(path: Path) -> VideoRow:
    """What verify says of a file."""
    return inspect(Inspection(str(path.parent), path.name, by_decord=False), lambda *_: None)


def check_against_sequential(path: Path, count: int | None = None) -> None:
    """Every frame asked for alone, and all at once in any order, as sequential decoding gives it."""
    plain = decoded_in_order(path)
    assert count is None or len(plain) == count
    order = np.random.default_rng(0).permutation(len(plain)).tolist()
    with open_video(path) as video:
        assert video.num_frames == len(plain)
        assert len(video.times) == len(plain) and (np.diff(video.times) > 0).all()
        for number in (0, len(plain) // 3, len(plain) // 2, len(plain) - 2, len(plain) - 1):
            assert np.array_equal(video.read([number])[0], plain[number]), number
    with open_video(path) as video:
        assert np.array_equal(video.read(order), np.stack(plain)[order])


def check_whole(path: Path, status: str = "ok") -> VideoRow:
    """The frames are right and verify calls the file whole."""
    check_against_sequential(path)
    row = verdict(path)
    assert (row.status, row.frames) == (status, len(decoded_in_order(path)))
    return row


# --- times that are not those of display ---------------------------------------------------------------------------

XVID = ("-c:v", "libxvid", "-bf", "2", "-q:v", "3")


@pytest.mark.parametrize("gop", ["12", "300"])
def test_packed_b_frames_in_avi_come_in_the_order_of_display(tmp_path, gop):
    path = from_numbered(tmp_path / "a.avi", *XVID, "-g", gop)
    check_whole(path)
    with open_video(path) as video:
        numbers = frame_numbers(video.read(range(video.num_frames)))
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("name", ["copy.mkv", "copy.mp4", "unpacked.avi", "unpacked.mkv"])
def test_wrong_times_stay_wrong_in_a_copy(tmp_path, name):
    source = from_numbered(tmp_path / "a.avi", *XVID, "-g", "12")
    unpack = ("-bsf:v", "mpeg4_unpack_bframes") if name.startswith("unpacked") else ()
    check_whole(ffmpeg(tmp_path / name, "-fflags", "+genpts", "-i", str(source), "-c", "copy", *unpack))


@pytest.mark.parametrize("codec", ["mpeg4", "mpeg2video", "libx264"])
def test_b_frames_of_other_encoders_in_avi_and_in_a_copy_of_it(tmp_path, codec):
    path = encode_video(tmp_path / "a.avi", numbered_frames(60), codec=codec, b_frames=2)
    check_whole(path)
    check_whole(ffmpeg(tmp_path / "a.mkv", "-fflags", "+genpts", "-i", str(path), "-c", "copy"))


def test_pictures_that_are_dropped_in_mpeg4_are_no_frames(tmp_path):
    placeholder = b"\0\0\1\xb6" + bytes([0b01_0_1_0000, 0b0_1_0_11111])  # 5 bits of time, not coded

    source = encode_video(tmp_path / "a.avi", numbered_frames(30), codec="mpeg4", b_frames=0)
    with av.open(str(source)) as reader, av.open(str(tmp_path / "b.avi"), "w") as writer:
        copy = writer.add_stream_from_template(reader.streams.video[0])
        for number, packet in enumerate(p for p in reader.demux(video=0) if p.size):
            if number in (7, 8, 20):
                dropped = av.Packet(placeholder)
                dropped.pts, dropped.dts, dropped.time_base = packet.pts, packet.dts, packet.time_base
                packet = dropped
            packet.stream = copy
            writer.mux(packet)
    check_whole(tmp_path / "b.avi")
    with open_video(tmp_path / "b.avi") as video:
        assert video.num_frames == 27


def test_resize_keeps_files_without_times_whole(tmp_path):
    (tmp_path / "in").mkdir()
    source = from_numbered(tmp_path / "in" / "a.avi", *XVID, "-g", "12")
    resize(tmp_path / "in", {"a.avi": "a.mp4"}, tmp_path / "out", Recipe(32, 8, 16.0), workers=1)
    with open_video(source) as before, open_video(tmp_path / "out" / "a.mp4") as after:
        assert after.num_frames == before.num_frames
        every = range(before.num_frames)
        assert frame_numbers(after.read(every, 64)) == frame_numbers(before.read(every, 64))


# --- key frames ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "mpeg4"),
        ("a.3gp", "mpeg4"),
        ("a.mov", "mpeg4"),
        ("a.3gp", "h263"),
        ("a.mov", "h263"),
        ("a.avi", "h263"),
    ],
)
def test_lying_key_frames_are_not_trusted(tmp_path, name, codec):
    row = check_whole(with_lying_key_frames(tmp_path / name, codec, size=(144, 176)), "sequential")
    assert "key frames wrongly marked" in row.reason and row.decoder == "sequential"


def test_ordinary_files_are_read_by_seeking(tmp_path, monkeypatch):
    """Also where an edit list hides the key frame that decoding starts at."""
    whole = encode_video(tmp_path / "a.mp4", numbered_frames(60), b_frames=2)
    hidden = hide_the_start(whole, tmp_path / "b.mp4", 26)
    monkeypatch.delattr(PyavReader, "_by_counting")
    with open_video(whole) as video:
        assert frame_numbers(video.read([40, 3])) == [40, 3]
    with open_video(hidden) as video:
        assert frame_numbers(video.read([0, 20])) == [26, 46]


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_frames_shown_before_the_first_key_frame(tmp_path, codec, suffix):
    source = encode_video(tmp_path / "a.mp4", numbered_frames(60), codec=codec, b_frames=3, open_gop=True)
    path = remuxed(source, tmp_path / f"b{suffix}", from_the_third_key_frame(source))
    try:
        decoded_in_order(path)
    except av.error.InvalidDataError:
        pytest.skip("plain decoding fails on it")
    check_whole(path)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_leading_pictures_that_need_their_key_frame_alone(tmp_path, suffix):
    how = "radl=2:keyint=12:min-keyint=12:bframes=3:no-open-gop=1:pools=none:log-level=none"
    source = from_numbered(tmp_path / "a.mp4", "-c:v", "libx265", "-preset", "ultrafast", "-x265-params", how)
    check_whole(remuxed(source, tmp_path / f"b{suffix}", from_the_third_key_frame(source)))


def from_the_third_key_frame(source: Path):
    with av.open(str(source)) as container:
        keys = [number for number, packet in enumerate(container.demux(video=0)) if packet.is_keyframe]
    return lambda number, packet: number >= keys[2]


def test_an_edit_list_without_a_key_frame_before_it(tmp_path):
    source = encode_video(tmp_path / "a.mp4", numbered_frames(60), b_frames=2, rotation=90)
    with (
        av.open(str(source)) as reader,
        av.open(str(tmp_path / "b.mp4"), "w", options={"avoid_negative_ts": "disabled"}) as writer,
    ):
        stream = reader.streams.video[0]
        copy = writer.add_stream_from_template(stream)
        packets = [packet for packet in reader.demux(stream) if packet.size]
        start = sorted(packet.pts for packet in packets)[17]
        for packet in packets[14:]:
            packet.pts, packet.dts, packet.stream = packet.pts - start, packet.dts - start, copy
            writer.mux(packet)
    with open_video(tmp_path / "b.mp4") as video:
        assert (video.num_frames, video.info.rotation) == (36, 90)
        assert video.read([0, 35]).shape == (2, 96, 64, 3)
    assert verdict(tmp_path / "b.mp4").frames == 36


# --- frames that are not shown -------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".webm", ".mp4"])
def test_hidden_vp9_frames_in_packets_of_their_own(tmp_path, suffix):
    source, log = tmp_path / "a.webm", str(tmp_path / "log")
    for number in "12":
        ffmpeg(
            source, "-f", "lavfi", "-i", "mandelbrot=s=160x120:r=25", "-t", "3", "-c:v", "libvpx-vp9", "-b:v", "200k",
            "-cpu-used", "5", "-auto-alt-ref", "1", "-lag-in-frames", "25", "-pass", number, "-passlogfile", log,
        )  # fmt: skip
    split = ("-c", "copy", "-bsf:v", "vp9_superframe_split", "-fflags", "-autobsf")
    path = ffmpeg(tmp_path / f"b{suffix}", "-i", str(source), *split)
    with av.open(str(path)) as container:
        assert sum(packet.size > 0 for packet in container.demux(video=0)) > 75  # some are hidden
    check_against_sequential(path, 75)
    with open_video(path) as video:
        assert video.fps == pytest.approx(25, rel=0.01)
    assert verdict(path).status == "ok"


@pytest.mark.parametrize("suffix", [".mkv", ".ivf", ".mp4"])
def test_hidden_av1_frames_in_packets_of_their_own(tmp_path, suffix):
    source = from_numbered(
        tmp_path / "a.mkv", "-c:v", "libaom-av1", "-cpu-used", "8", "-lag-in-frames", "19", "-g", "30"
    )
    split = ("-c", "copy", "-bsf:v", "av1_frame_split", "-fflags", "-autobsf")
    path = ffmpeg(tmp_path / f"b{suffix}", "-i", str(source), *split)
    check_against_sequential(path, 60)
    with open_video(path) as video:
        assert video.fps == pytest.approx(25, rel=0.01)
    assert verdict(path).status == "ok"


# --- side data, sizes, colours -------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".avi", ".mov"])
def test_side_data_without_a_name_is_no_matter(tmp_path, suffix):
    assert check_whole(with_exif_pictures(tmp_path / f"a{suffix}")).rotation == 0


def test_the_size_is_that_of_the_stream(tmp_path):
    path = encode_video(tmp_path / "a.webm", numbered_frames(20), codec="libvpx", options={"b": "2M"})
    content = path.read_bytes()
    assert content.count(b"\xb0\x81\x60\xba\x81\x40") == 1  # 96 x 64
    path.write_bytes(content.replace(b"\xb0\x81\x60\xba\x81\x40", b"\xb0\x81\x50\xba\x81\x30"))
    check_whole(path)
    path = encode_video(tmp_path / "a.mp4", numbered_frames(20))
    content = path.read_bytes()
    assert content.count(struct.pack(">HH", 96, 64)) == 1
    path.write_bytes(content.replace(struct.pack(">HH", 96, 64), struct.pack(">HH", 200, 100)))
    check_whole(path)


@pytest.mark.parametrize("transfer", ["smpte2084", "arib-std-b67"])
def test_hdr_is_read_as_it_is_and_named_once(tmp_path, transfer):
    path = from_numbered(
        tmp_path / "a.mp4", "-c:v", "libx265", "-pix_fmt", "yuv420p10le", "-color_trc", transfer,
        "-color_primaries", "bt2020", "-colorspace", "bt2020nc", "-x265-params", "log-level=none:pools=none",
    )  # fmt: skip
    assert check_whole(path).reason.count("HDR") == 1


def test_pixels_that_are_not_square_stay_as_stored(tmp_path):
    path = from_numbered(tmp_path / "a.mp4", "-vf", "setsar=4/3", "-c:v", "libx264")
    check_whole(path)
    with open_video(path) as video:
        info = video.info
    assert (info.width, info.height, info.pixel_aspect) == (96, 64, Fraction(4, 3))
    assert info.display_size == (128, 64)


# --- headers and kinds ---------------------------------------------------------------------------------------------


def test_a_header_that_claims_too_much_is_no_damage(tmp_path):
    source = encode_video(tmp_path / "source.mkv", numbered_frames(60))
    content = source.read_bytes()
    place = content.index(b"\x44\x89\x88") + 3  # the duration
    duration = struct.unpack(">d", content[place : place + 8])[0]
    path = tmp_path / "a.mkv"
    path.write_bytes(content[:place] + struct.pack(">d", 5 * duration) + content[place + 8 :])
    row = check_whole(path)
    assert "the header claims 300 frames, 60 are there" in row.reason


def test_a_fragmented_file_cut_between_fragments_is_whole_as_far_as_it_goes(tmp_path):
    source = encode_video(tmp_path / "a.mp4", numbered_frames(60))
    with (
        av.open(str(source)) as reader,
        av.open(str(tmp_path / "b.mp4"), "w", options={"movflags": "frag_keyframe+empty_moov"}) as writer,
    ):
        copy = writer.add_stream_from_template(reader.streams.video[0])
        for packet in reader.demux(video=0):
            if packet.size:
                packet.stream = copy
                writer.mux(packet)
    content = (tmp_path / "b.mp4").read_bytes()
    parts = [place - 4 for place in range(len(content)) if content.startswith(b"moof", place)]
    (tmp_path / "c.mp4").write_bytes(content[: parts[2]])
    check_whole(tmp_path / "c.mp4")


def test_encrypted_files_are_named(tmp_path):
    source = encode_video(tmp_path / "a.mp4", numbered_frames(20))
    key = "76a6c65c5ea762046bd749a2e632ccbb"
    path = ffmpeg(
        tmp_path / "b.mp4", "-i", str(source), "-c", "copy", "-encryption_scheme", "cenc-aes-ctr",
        "-encryption_key", key, "-encryption_kid", key,
    )  # fmt: skip
    with pytest.raises(UnreadableVideo, match="encrypted"):
        open_video(path)
    assert "encrypted" in verdict(path).reason


def test_a_cover_picture_is_no_video(tmp_path):
    cover = ffmpeg(tmp_path / "cover.png", "-f", "lavfi", "-i", "color=red:s=64x64", "-frames:v", "1")
    sound = write_audio(tmp_path / "sound.mp4")
    picture = (
        "-i",
        str(cover),
        "-c:a",
        "copy",
        "-c:v",
        "mjpeg",
        "-pix_fmt",
        "yuvj420p",
        "-disposition:v",
        "attached_pic",
    )
    path = ffmpeg(tmp_path / "a.m4a", "-i", str(sound), *picture, "-map", "0", "-map", "1", "-f", "mp4")
    with pytest.raises(UnreadableVideo, match="only a cover picture"):
        open_video(path)


@pytest.mark.parametrize("name", ["a.webp", "a.gif"])
def test_animated_pictures_are_videos(tmp_path, name):
    source = encode_video(tmp_path / "a.mp4", numbered_frames(20), fps=20)
    path = ffmpeg(tmp_path / name, "-i", str(source), *(("-lossless", "1") if name == "a.webp" else ()))
    with open_video(path) as video:
        assert (video.num_frames, video.fps) == (20, pytest.approx(20, rel=0.02))
        assert frame_numbers(video.read([13, 2, 13])) == [13, 2, 13]
        assert video.times == pytest.approx(np.arange(20) / 20, abs=0.011)
    assert (verdict(path).status, verdict(path).frames) == ("ok", 20)


def test_only_our_errors_leave_odd_bytes(tmp_path):
    generator = np.random.default_rng(0)
    sources = [
        with_exif_pictures(tmp_path / "a.avi"),
        with_lying_key_frames(tmp_path / "b.mp4"),
        encode_video(tmp_path / "c.webm", numbered_frames(20), codec="libvpx-vp9", options={"cpu-used": "8"}),
        encode_video(tmp_path / "d.avi", numbered_frames(20), codec="mpeg4", b_frames=2),
    ]
    for number in range(40):
        source = sources[number % 4]
        content = np.frombuffer(source.read_bytes(), dtype=np.uint8).copy()
        content[generator.integers(0, len(content), 20)] ^= 255
        path = tmp_path / f"bad {number}{source.suffix}"
        path.write_bytes(content.tobytes())
        try:
            with open_video(path) as video:
                assert video.info.num_frames > 0
                video.read([0, video.num_frames - 1], 32)
        except StvideoError as error:
            assert "\n" not in str(error)
        assert verdict(path).status in ("ok", "exact", "sequential", "partial", "unusable")
