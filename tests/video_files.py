"""Real video files for tests, encoded here with PyAV.

Every frame carries its number as black and white blocks, so that decoded pixels tell which frame they are:

    path = encode_video(tmp_path / "a.mp4", numbered_frames(40))
    assert frame_numbers(read_frames(path, [3, 17])) == [3, 17]
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

BITS = 12
SHARED_VIDEOS = Path(__file__).parents[1].parent / "shared" / "videos"


def numbered_frames(count: int, height: int = 64, width: int = 96, seed: int = 0) -> np.ndarray:
    """(count, height, width, 3) uint8: a drifting texture under a strip of blocks that spells the frame's number."""
    generator = np.random.default_rng(seed)
    texture = generator.uniform(40, 215, (height // 8 + 2, width // 8 + 2, 3))
    texture = texture.repeat(8, 0).repeat(8, 1)
    frames = np.stack([np.roll(texture, (number, 2 * number), (0, 1))[:height, :width] for number in range(count)])
    strip, block = height // 4, width // BITS
    for number in range(count):
        for bit in range(BITS):
            frames[number, :strip, bit * block : (bit + 1) * block] = 255 if number >> bit & 1 else 0
    return frames.round().astype(np.uint8)


def frame_numbers(frames: torch.Tensor | np.ndarray) -> list[int]:
    """The numbers that frames (T, H, W, 3) of `numbered_frames` carry, whatever their size."""
    pixels = np.asarray(frames).astype(np.float32).mean(-1)
    _, height, width = pixels.shape
    row = pixels[:, height // 16 : max(height // 6, height // 16 + 1)].mean(1)
    centers = [int((bit + 0.5) * (width // BITS * BITS / BITS)) for bit in range(BITS)]
    return [sum(int(line[center] > 127) << bit for bit, center in enumerate(centers)) for line in row]


def encode_video(
    path: Path,
    frames: np.ndarray,
    *,
    codec: str = "libx264",
    fps: float = 30,
    options: dict[str, str] | None = None,
    gop: int = 12,
    b_frames: int | None = None,
    open_gop: bool = False,
    rotation: int | None = None,
    times: Sequence[int] | None = None,
    pixel_format: str = "yuv420p",
    container_format: str | None = None,
) -> Path:
    """Encode frames (T, H, W, 3) uint8.

    Args:
        path: its ending says the container, unless ``container_format`` does.
        gop: frames from one key frame to the next.
        b_frames: at most so many in a row; None leaves it to the encoder.
        open_gop: let frames before a key frame refer to it and to the group before.
        rotation: display rotation in degrees written to the container.
        times: time stamps of the frames in milliseconds (variable frame rate); None: evenly at ``fps``.
    """
    chosen = {"libx264": {"crf": "16", "preset": "veryfast"}, "libx265": {"crf": "16", "preset": "ultrafast"}}.get(
        codec, {}
    )
    chosen = {**chosen, **(options or {})}
    if codec == "libx264":
        extra = [f"keyint={gop}", f"min-keyint={gop}", "scenecut=0", "log-level=none", f"open-gop={int(open_gop)}"]
        chosen["x264-params"] = ":".join(extra)
    elif codec == "libx265":
        extra = [f"keyint={gop}", f"min-keyint={gop}", "scenecut=0", "log-level=none", f"open-gop={int(open_gop)}"]
        chosen["x265-params"] = ":".join([*extra, "pools=none", "frame-threads=1"])
    if b_frames is not None:
        chosen["bf"] = str(b_frames)
    with av.open(str(path), "w", format=container_format) as container:
        stream: Any = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001), options=chosen)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], pixel_format
        stream.codec_context.gop_size = gop
        stream.codec_context.thread_count = 1
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for number, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = int(times[number]), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def set_display_matrix(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Write how the frames of an MP4 file are to be turned and mirrored: (x, y) is shown at (ax + cy, bx + dy)."""
    content = path.read_bytes()
    place = content.rindex(struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30))  # that of the track
    matrix = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(content[:place] + matrix + content[place + len(matrix) :])
    return path


def cut_without_encoding(source: Path, target: Path, first_frame: int, last_frame: int) -> Path:
    """Copy the packets of a range of frames, as ``ffmpeg -ss ... -c copy`` does: the start lies inside a group.

    Packets from the key frame before ``first_frame`` are kept with negative times, which the MP4 muxer turns into an
    edit list that hides them.
    """
    with av.open(str(source)) as reader, av.open(str(target), "w", options={"avoid_negative_ts": "disabled"}) as writer:
        stream = reader.streams.video[0]
        copy = writer.add_stream_from_template(stream)
        packets = [packet for packet in reader.demux(stream) if packet.size]
        times = sorted(packet.pts for packet in packets)
        start, stop = times[first_frame], times[last_frame]
        key = max(packet.pts for packet in packets if packet.is_keyframe and packet.pts <= start)
        copying = False
        for packet in packets:
            copying = copying or (packet.is_keyframe and packet.pts == key)
            if not copying:
                continue
            if packet.pts > stop:
                break  # in the order of decoding, so that every frame copied has its references
            packet.pts -= start
            packet.dts -= start
            packet.stream = copy
            writer.mux(packet)
    return target


def hide_the_start(source: Path, target: Path, frames: int) -> Path:
    """Copy a file, its first ``frames`` frames hidden by an edit list though all of it is there, as phones trim."""
    with av.open(str(source)) as reader, av.open(str(target), "w", options={"avoid_negative_ts": "disabled"}) as writer:
        stream = reader.streams.video[0]
        copy = writer.add_stream_from_template(stream)
        packets = [packet for packet in reader.demux(stream) if packet.size]
        start = sorted(packet.pts for packet in packets)[frames]
        for packet in packets:
            packet.pts, packet.dts, packet.stream = packet.pts - start, packet.dts - start, copy
            writer.mux(packet)
    return target


def repeat_without_encoding(source: Path, target: Path, times: int) -> Path:
    """A long video for little work: the packets of a file without B-frames, ``times`` times in a row."""
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        stream = reader.streams.video[0]
        copy = writer.add_stream_from_template(stream)
        packets = [packet for packet in reader.demux(stream) if packet.size]
        length = packets[-1].pts - packets[0].pts + packets[1].pts - packets[0].pts
        for number in range(times):
            for packet in packets:
                again = av.Packet(bytes(packet))
                again.pts, again.dts = packet.pts + number * length, packet.dts + number * length
                again.is_keyframe, again.time_base, again.stream = packet.is_keyframe, packet.time_base, copy
                writer.mux(again)
    return target


def write_audio(path: Path) -> Path:
    """A file with a sound track and no picture."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("aac", rate=16000, layout="mono")
        for start in range(0, 16000, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
