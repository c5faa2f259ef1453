"""A folder with one file of every kind that people have, good and bad, for the tests of the data tools."""

import os
from pathlib import Path

import av

from tests.video_files import cut_without_encoding, encode_video, numbered_frames, write_audio

FRAMES = 40


def encode(path: Path, height=64, width=96, frames=FRAMES, **how) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return encode_video(path, numbered_frames(frames, height, width), **{"b_frames": 0, **how})


def cut_short(source: Path, target: Path, share: float) -> Path:
    content = source.read_bytes()
    target.write_bytes(content[: int(len(content) * share)])
    return target


def index_first(source: Path, target: Path) -> Path:
    """The same packets with the index of the MP4 file at its start, so that a file cut short can be opened."""
    with av.open(str(source)) as reader, av.open(str(target), "w", options={"movflags": "faststart"}) as writer:
        stream = writer.add_stream_from_template(reader.streams.video[0])
        for packet in reader.demux(reader.streams.video[0]):
            if packet.size:
                packet.stream = stream
                writer.mux(packet)
    return target


def write_good(root: Path) -> list[str]:
    """Files that are all right for PyAV, the first three for decord too."""
    encode(root / "a" / "clip.mp4")
    encode(root / "a" / "rotated.mp4", rotation=90)
    encode(root / "b" / "clip.webm", codec="libvpx", options={"b": "2M"}, b_frames=None)
    encode(root / "b" / "open gop.mp4", b_frames=3, open_gop=True)
    encode(root / "b" / "source.mp4", b_frames=2)
    cut_without_encoding(root / "b" / "source.mp4", root / "b" / "cut.mp4", 17, 35)
    return ["a/clip.mp4", "a/rotated.mp4", "b/clip.webm", "b/open gop.mp4", "b/source.mp4", "b/cut.mp4"]


def write_bad(root: Path) -> list[str]:
    """Files of which nothing or little can be had."""
    folder = root / "bad"
    folder.mkdir(parents=True)
    whole = encode(root / "whole.mp4")
    (folder / "empty.mp4").touch()
    (folder / "page.mp4").write_text("<!DOCTYPE html><html>Video unavailable</html>")
    write_audio(folder / "sound.mp4")
    cut_short(whole, folder / "no_index.mp4", 0.7)
    first = index_first(whole, root / "index_first.mp4")
    cut_short(first, folder / "tenth.mp4", 0.2)
    for name in ("whole.mp4", "index_first.mp4"):
        (root / name).unlink()
    return [f"bad/{name}" for name in ("empty.mp4", "page.mp4", "sound.mp4", "no_index.mp4", "tenth.mp4")]


def write_partial(root: Path) -> str:
    """A file that is good for the larger part of its frames."""
    whole = encode(root / "whole.mp4")
    first = index_first(whole, root / "index_first.mp4")
    cut_short(first, root / "partial.mp4", 0.8)
    for path in (whole, first):
        path.unlink()
    return "partial.mp4"


def write_pipe(root: Path) -> str:
    """A "file" that opening never comes back from."""
    os.mkfifo(root / "pipe.mp4")
    return "pipe.mp4"
