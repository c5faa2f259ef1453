"""Encoded videos that several test modules read: made once per test process."""

from pathlib import Path

import numpy as np
import pytest

from tests.data.tiny_loader import TRAIN, VAL
from tests.video_files import cut_without_encoding, encode_video, numbered_frames

FRAMES = 60

# name -> how it is encoded; every file shows frames 0 .. 59 of `numbered_frames`, turned as its rotation says
KINDS = {
    "h264_closed_gop.mp4": {"b_frames": 2},
    "h264_no_b_frames.mp4": {"b_frames": 0},
    "h264_open_gop.mp4": {"b_frames": 3, "open_gop": True},
    "h264_open_gop.mkv": {"b_frames": 3, "open_gop": True},
    "h264_variable_rate.mp4": {"times": np.cumsum(np.random.default_rng(0).integers(10, 80, FRAMES)).tolist()},
    "h264_29.97.mp4": {"fps": 30000 / 1001},
    "h264_odd_size.mp4": {"size": (66, 98)},
    "h264.ts": {"b_frames": 2},
    "h264_b_frames.avi": {"b_frames": 2},
    "h264_b_frames.flv": {"b_frames": 2},
    "h264_stream.h264": {"b_frames": 2},
    "hevc.mp4": {"codec": "libx265"},
    "hevc_open_gop.mp4": {"codec": "libx265", "open_gop": True},
    "hevc.ts": {"codec": "libx265"},
    "vp8.webm": {"codec": "libvpx", "options": {"b": "2M", "auto-alt-ref": "1", "lag-in-frames": "16"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"crf": "20", "b": "0", "cpu-used": "8", "lag-in-frames": "16"}},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"b": "4M"}, "b_frames": 0},
    "mpeg4_b_frames.avi": {"codec": "mpeg4", "options": {"b": "4M"}, "b_frames": 2},
    "mpeg4_b_frames.mkv": {"codec": "mpeg4", "options": {"b": "4M"}, "b_frames": 2},
    "wmv2.wmv": {"codec": "wmv2", "options": {"b": "4M"}},
    "mpeg2.mpg": {"codec": "mpeg2video", "options": {"b": "4M"}, "b_frames": 2},
    "av1.mp4": {"codec": "libsvtav1", "options": {"crf": "20", "preset": "12"}},
    "rotated_90.mp4": {"rotation": 90},
    "rotated_90_open_gop.mp4": {"rotation": 90, "b_frames": 3, "open_gop": True},
    "rotated_90.mkv": {"rotation": 90},
    "rotated_180.mp4": {"rotation": 180},
    "rotated_270.mp4": {"rotation": -90},
}


@pytest.fixture(scope="session")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one file of every kind in `KINDS`, and ``cut.mp4``: frames 17 .. 44 copied without encoding."""
    folder = tmp_path_factory.mktemp("encoded")
    for name, how in KINDS.items():
        how = dict(how)
        height, width = how.pop("size", (64, 96))
        encode_video(folder / name, numbered_frames(FRAMES, height, width), **how)
    cut_without_encoding(folder / "h264_closed_gop.mp4", folder / "cut.mp4", 17, 45)
    return folder


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """14 training and 7 validation videos of 3 classes; every one has pictures of its own."""
    folder = tmp_path_factory.mktemp("videos")
    for split, count in (("train", TRAIN), ("val", VAL)):
        lines = []
        for number in range(count):
            name = f"{split}/{number:02d}.mp4"
            (folder / split).mkdir(exist_ok=True)
            frames = numbered_frames(24 + number, 48, 72, seed=number + 100 * (split == "val"))
            encode_video(folder / name, frames, b_frames=number % 3)
            lines.append(f"{name} {number % 3}\n")
        (folder / f"{split}.txt").write_text("".join(lines))
    return folder
