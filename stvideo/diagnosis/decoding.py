"""Which video codecs each decoder reads here: a tiny clip of each is encoded and read back in random order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np

from stvideo.core.errors import StvideoError
from stvideo.data.video.decode import Video, decord_installed
from stvideo.data.video.torchcodec import torchcodec_problem
from stvideo.diagnosis.finding import BROKEN, LESS, OK, Finding

GROUP = "decoding"
FRAMES, SIDE, STEP = 12, 64, 16  # frame i is gray level 30 + 16 i
WANTED = (7, 2, 11, 0)
# codec -> (encoders, the first that is there; file name; options)
CODECS: dict[str, tuple[tuple[str, ...], str, dict[str, str]]] = {
    "h264": (("libx264", "libopenh264"), "h264.mp4", {"preset": "ultrafast"}),
    "hevc": (("libx265",), "hevc.mp4", {"preset": "ultrafast", "x265-params": "log-level=none"}),
    "vp8": (("libvpx",), "vp8.webm", {"b": "1M"}),
    "vp9": (("libvpx-vp9",), "vp9.webm", {"cpu-used": "8"}),
    "mpeg4": (("mpeg4",), "mpeg4.avi", {"b": "1M"}),
    "av1": (("libsvtav1", "libaom-av1", "librav1e"), "av1.mp4", {}),
}
NEEDED = "h264"
UPGRADE = "pip install --upgrade av"


def write_clips(folder: Path) -> list[Finding]:
    """A clip of every codec that can be encoded here; what cannot be is told."""
    found = []
    for codec, (encoders, name, options) in CODECS.items():
        encoder = next((encoder for encoder in encoders if _exists(encoder)), None)
        if encoder is None:
            text = f"not tried: PyAV has no encoder for it ({', '.join(encoders)})"
            found.append(Finding(GROUP, codec, LESS, text, f"{UPGRADE} to try it"))
            continue
        try:
            _encode(folder / name, encoder, options if encoder == encoders[0] else {})
        except (av.FFmpegError, ValueError, OSError) as error:
            (folder / name).unlink(missing_ok=True)
            found.append(Finding(GROUP, codec, LESS, f"not tried: {encoder} fails ({error})", f"{UPGRADE} to try it"))
    return found


def check_decoder(decoder: str, codec: str, folder: Path) -> list[Finding]:
    """Whether ``decoder`` returns the right frames of the clip of ``codec``; nothing where there is no clip."""
    path = folder / CODECS[codec][1]
    name = f"{codec} by {decoder}"
    if not path.exists():
        return []
    if decoder == "decord" and not decord_installed():
        return [Finding(GROUP, name, LESS, "decord is not installed", "nothing: PyAV reads it")]
    problem = torchcodec_problem() if decoder == "torchcodec" else None
    if problem:
        return [Finding(GROUP, name, LESS, problem.split(":")[0], problem.split(": ")[-1])]
    try:
        with Video(path, decoder, timeout=20) as video:
            frames = video.read(WANTED).float().mean((1, 2, 3))
    except (StvideoError, IndexError) as error:
        return [_failed(decoder, codec, " ".join(str(error).split())[-120:])]
    numbers = [round((float(level) - 30) / STEP) for level in frames]
    if numbers != list(WANTED):
        return [_failed(decoder, codec, f"frames {numbers} came instead of {list(WANTED)}")]
    return [Finding(GROUP, name, OK, "right frames in any order")]


def _failed(decoder: str, codec: str, reason: str) -> Finding:
    name = f"{codec} by {decoder}"
    if decoder != "pyav":
        if decoder == "decord" and codec == "av1":
            return Finding(GROUP, name, OK, "decord cannot: PyAV reads it")
        return Finding(GROUP, name, LESS, f"fails: {reason}", "nothing: PyAV reads it")
    return Finding(GROUP, name, BROKEN if codec == NEEDED else LESS, f"fails: {reason}", UPGRADE)


def _exists(encoder: str) -> bool:
    try:
        av.codec.Codec(encoder, "w")
    except av.FFmpegError:
        return False
    return True


def _encode(path: Path, encoder: str, options: dict[str, str]) -> None:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(encoder, rate=30, options=options)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = 5
        for number in range(FRAMES):
            picture = np.full((SIDE, SIDE, 3), 30 + STEP * number, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
