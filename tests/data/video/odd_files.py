"""Build video files of the odd kinds that cameras, old encoders and careless tools leave behind."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from tests.video_files import encode_video, numbered_frames

FFMPEG = shutil.which("ffmpeg")


def ffmpeg(path: Path, *arguments: str) -> Path:
    """Write ``path`` with FFmpeg's command line; the test is skipped where there is none or it lacks the encoder."""
    if FFMPEG is None:
        pytest.skip("ffmpeg's command line is not installed")
    command = [FFMPEG, "-hide_banner", "-loglevel", "error", "-y", *arguments, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if result.returncode:
        if "Unknown encoder" in result.stderr or "Unknown bitstream filter" in result.stderr:
            pytest.skip(f"this ffmpeg cannot write it: {result.stderr.splitlines()[0]}")
        raise RuntimeError(result.stderr)
    return path


def from_numbered(path: Path, *arguments: str, frames: int = 60) -> Path:
    """Encode ``frames`` numbered frames with FFmpeg's command line and its ``arguments``."""
    source = encode_video(path.with_name(f"source of {path.name}.mkv"), numbered_frames(frames), codec="ffv1", fps=25)
    return ffmpeg(path, "-i", str(source), *arguments)


def remuxed(source: Path, target: Path, change: Callable[[int, Any], bool]) -> Path:
    """Copy the packets of ``source``; ``change(number, packet)`` may alter each, and leaves it out by False."""
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        copy = writer.add_stream_from_template(reader.streams.video[0])
        packets = [packet for packet in reader.demux(video=0) if packet.size]
        for number, packet in enumerate(packets):
            if change(number, packet):
                packet.stream = copy
                writer.mux(packet)
    return target


def with_lying_key_frames(path: Path, codec: str = "mpeg4", every: int = 20, size: tuple[int, int] = (64, 96)) -> Path:
    """A file with one intra picture at its start that marks every so many-th packet as a key frame."""
    source = encode_video(
        path.with_name(f"honest {path.name}"), numbered_frames(60, *size), codec=codec, gop=1000, b_frames=0,
        options={"b": "4M", "sc_threshold": "1000000000"},
    )  # fmt: skip

    def mark(number: int, packet: Any) -> bool:
        packet.is_keyframe = number % every == 0
        return True

    return remuxed(source, path, mark)


def with_exif_pictures(path: Path, count: int = 20) -> Path:
    """Motion JPEG whose pictures carry EXIF data, which PyAV has no name for."""
    exif = Image.Exif()
    exif[0x010F] = "A camera"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p"
        for number, picture in enumerate(numbered_frames(count)):
            content = io.BytesIO()
            Image.fromarray(picture).save(content, "jpeg", quality=95, exif=exif)
            packet = av.Packet(content.getvalue())
            packet.pts = packet.dts = number
            packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, 25), stream, True
            container.mux(packet)
    return path


def decoded_in_order(path: Path, stream_number: int = 0) -> Sequence[np.ndarray]:
    """What plain sequential decoding with PyAV shows, RGB."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=stream_number)]
