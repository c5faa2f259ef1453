"""500 files through training's loader, most of them bad: no hang, no crash, no wrong label, each bad file named once.

A good file shows its class: its pictures are flat, dark for class 0, brighter for 1, brightest for 2.
"""

import logging
import os
from pathlib import Path

import numpy as np
import pytest

from stvideo.core.errors import StvideoError
from stvideo.data.loading.datasets import build_dataset
from stvideo.data.loading.loader import build_loader
from stvideo.settings.schema import DataConfig
from tests.video_files import encode_video, write_audio

FILES, CLASSES, FRAMES = 500, 3, 24
LEVELS = (40, 120, 200)  # gray of each class
CODECS = {
    "h264.mp4": {"b_frames": 2},
    "h264.mkv": {"b_frames": 0},
    "h264.mov": {"b_frames": 2},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"crf": "30", "b": "0", "cpu-used": "8"}},
    "vp8.webm": {"codec": "libvpx", "options": {"b": "1M"}},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"b": "1M"}},
}


def shown(label: int) -> np.ndarray:
    """Frames of class ``label``: flat, with a bar that moves so that frames are worth encoding."""
    frames = np.full((FRAMES, 48, 64, 3), LEVELS[label], dtype=np.uint8)
    for number in range(FRAMES):
        frames[number, 46:, number * 2 : number * 2 + 4] = 255 - LEVELS[label]
    return frames


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """(codec, label) -> bytes of a good file."""
    folder = tmp_path_factory.mktemp("sources")
    content = {}
    for name, how in CODECS.items():
        for label in range(CLASSES):
            path = encode_video(folder / f"{label}_{name}", shown(label), **how)
            content[name, label] = path.read_bytes()
    return content


class Damage:
    """Ways of spoiling a file; each writes ``path`` and says whether it can still be read (None: it may be)."""

    def __init__(self, generator: np.random.Generator, audio: bytes) -> None:
        self.generator, self.audio = generator, audio

    def zero_bytes(self, path: Path, content: bytes) -> bool:
        path.write_bytes(b"")
        return False

    def web_page(self, path: Path, content: bytes) -> bool:
        path.write_bytes(b"<!DOCTYPE html><html><body>404 Not Found</body></html>")
        return False

    def noise(self, path: Path, content: bytes) -> bool:
        path.write_bytes(self.generator.bytes(3000))
        return False

    def audio_only(self, path: Path, content: bytes) -> bool:
        path.write_bytes(self.audio)
        return False

    def cut(self, path: Path, content: bytes) -> None:
        path.write_bytes(content[: int(len(content) * self.generator.uniform(0.02, 0.98))])

    def no_header(self, path: Path, content: bytes) -> None:
        path.write_bytes(content.replace(b"moov", b"free").replace(b"\x1aE\xdf\xa3", b"\0\0\0\0", 1))

    def flipped_bits(self, path: Path, content: bytes) -> None:
        data = np.frombuffer(content, dtype=np.uint8).copy()
        places = self.generator.integers(0, len(data), int(self.generator.integers(1, 60)))
        data[places] ^= self.generator.integers(1, 256, len(places), dtype=np.uint8)
        path.write_bytes(data.tobytes())

    def hole(self, path: Path, content: bytes) -> None:
        start = int(self.generator.integers(0, len(content) - 300))
        path.write_bytes(content[:start] + bytes(300) + content[start + 300 :])

    def folder(self, path: Path, content: bytes) -> bool:
        path.mkdir()
        return False

    def missing(self, path: Path, content: bytes) -> bool:
        return False

    def dangling_link(self, path: Path, content: bytes) -> bool:
        path.symlink_to("nowhere.mp4")
        return False

    def pipe(self, path: Path, content: bytes) -> bool:
        os.mkfifo(path)
        return False

    def locked(self, path: Path, content: bytes) -> bool | None:
        path.write_bytes(content)
        path.chmod(0)
        return None if os.access(path, os.R_OK) else False  # root may read everything

    def whole(self, path: Path, content: bytes) -> bool:
        path.write_bytes(content)
        return True


KINDS = [name for name in vars(Damage) if not name.startswith("_")]


@pytest.fixture(scope="module")
def spoiled(sources, tmp_path_factory):
    """A data set of 500 files with its list, and what is known of each file: True, False, or None."""
    root = tmp_path_factory.mktemp("spoiled")
    damage = Damage(np.random.default_rng(0), write_audio(root / "audio.mp4").read_bytes())
    lines, readable = [], []
    for number in range(FILES):
        label = number % CLASSES
        codec = list(CODECS)[number // CLASSES % len(CODECS)]
        # Every third file is whole, the others take turns.
        kind = "whole" if number % 3 == 1 else KINDS[number % len(KINDS)]
        name = f"{number:03d}_{kind}.{codec.split('.')[-1]}"
        readable.append(getattr(damage, kind)(root / name, sources[codec, label]))
        lines.append(f"{name} {label}\n")
    (root / "train.txt").write_text("".join(lines))
    return root, readable


def settings(root: Path, **more) -> DataConfig:
    values = {"num_frames": 4, "stride": 4, "img_size": 32, "short_side": [32, 40], "max_unreadable": 1.0, **more}
    return DataConfig(root=str(root), **values)


@pytest.mark.parametrize("decoder", ["auto", "decord"])
def test_five_hundred_files_through_the_loader(spoiled, decoder, caplog):
    root, readable = spoiled
    loader = build_loader(build_dataset(settings(root, decoder=decoder), "train"), batch_size=10, workers=2)
    batches = clips = wrong = 0
    with caplog.at_level(logging.WARNING, "stvideo.data"):
        for epoch in range(2):
            loader.set_epoch(epoch)
            for batch in loader:
                batches += 1
                assert batch["video"].shape == (10, 3, 4, 32, 32)
                assert batch["label"].tolist() == [number % CLASSES for number in batch["index"].tolist()]
                assert loader.unreadable.keys().isdisjoint(batch["index"].tolist())
                for number, label, clip in zip(batch["index"], batch["label"], batch["video"], strict=True):
                    level = clip[:, :, :24].float().mean()
                    seen = int(np.argmin([abs(float(level) - gray) for gray in LEVELS]))
                    clips += 1
                    if readable[int(number)]:
                        assert seen == int(label)
                    else:
                        wrong += seen != int(label)  # pixels that the damage changed, under the right label still
    assert batches == 2 * FILES // 10
    assert wrong < 0.02 * clips
    bad = {number for number, state in enumerate(readable) if state is False}
    good = {number for number, state in enumerate(readable) if state}
    assert bad <= loader.unreadable.keys()
    assert good.isdisjoint(loader.unreadable)
    messages = [record.getMessage() for record in caplog.records if "unreadable" in record.getMessage()]
    assert len(messages) == len(set(messages)) == len(loader.unreadable)
    assert not any("\n" in message for message in messages)
    for number, message in loader.unreadable.items():  # by its name, and each in one message only
        name = loader.dataset.path(number).name
        assert name in message
        assert sum(name in other for other in messages) == 1


def test_no_file_is_read_where_there_is_no_permission(sources, tmp_path):
    """As another user than root, in a process of its own."""
    if not hasattr(os, "fork") or os.getuid() != 0:
        pytest.skip("only root can become another user")
    (tmp_path / "locked.mp4").write_bytes(sources["h264.mp4", 0])
    (tmp_path / "locked.mp4").chmod(0)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and folder != Path("/") and folder.name:
            folder.chmod(folder.stat().st_mode | 0o055)
    from stvideo.data.video.decode import probe

    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        words = "was read"
        try:
            os.setuid(65534)
            probe(tmp_path / "locked.mp4")
        except BaseException as error:
            words = str(error)
        finally:  # whatever happened, nothing of the tests goes on in the child
            os.write(writer, words.encode())
            os._exit(0)
    os.close(writer)
    words = os.read(reader, 1000).decode()
    os.close(reader)
    os.waitpid(child, 0)
    assert "locked.mp4" in words
    assert "Permission denied" in words


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("a.mp4 0\n../outside.mp4 1\n", r"train\.txt:2: '\.\./outside\.mp4' lies outside the data root"),
        ("a.mp4 0\n/etc/passwd 1\n", r"train\.txt:2: '/etc/passwd' lies outside the data root"),
        ("a.mp4 0\nb.mp4 jumping\n", r"train\.txt:2: label 'jumping'"),
        ("", r"train\.txt: the list is empty"),
    ],
)
def test_what_is_wrong_with_the_list_is_one_line(tmp_path, sources, lines, message):
    (tmp_path / "a.mp4").write_bytes(sources["h264.mp4", 0])
    (tmp_path / "train.txt").write_text(lines)
    with pytest.raises(StvideoError, match=message) as raised:
        build_dataset(settings(tmp_path), "train")
    assert "\n" not in str(raised.value)


def test_twice_the_same_video_and_a_class_without_one_are_told(tmp_path, sources, caplog):
    (tmp_path / "a.mp4").write_bytes(sources["h264.mp4", 0])
    (tmp_path / "classes.txt").write_text("sit\nrun\n")
    (tmp_path / "train.txt").write_text("a.mp4 sit\na.mp4 sit\n")
    with caplog.at_level(logging.WARNING, "stvideo.data"):
        try:
            build_dataset(settings(tmp_path), "train")
            told = caplog.text
        except StvideoError as error:
            told = str(error)
    assert "a.mp4" in told
