"""Hundreds of damaged files through training's loader: no hang, no crash, no wrong label, each bad file named once."""

import logging
from pathlib import Path

import numpy as np

from stvideo.config import DataConfig
from stvideo.data.datasets import build_dataset
from stvideo.data.loader import build_loader
from tests.data.conftest import KINDS

FILES, CLASSES = 240, 3


def damage(content: bytes, kind: int, generator: np.random.Generator) -> bytes:
    """Cut short, with flipped bits, with a hole, replaced by noise, or (two kinds of six) left whole."""
    data = np.frombuffer(content, dtype=np.uint8).copy()
    if kind == 0:
        data = data[: int(len(data) * generator.random())]
    elif kind == 1:
        places = generator.integers(0, len(data), int(generator.integers(1, 200)))
        data[places] ^= generator.integers(1, 256, len(places), dtype=np.uint8)
    elif kind == 2:
        start = generator.integers(0, len(data) - 500)
        data[start : start + 400] = 0
    elif kind == 3:
        return generator.bytes(3000)
    return data.tobytes()


def test_damaged_files_through_the_loader(encoded: Path, tmp_path: Path, caplog):
    generator = np.random.default_rng(0)
    kinds = sorted(KINDS)
    whole, lines = set(), []
    for number in range(FILES):
        source = encoded / kinds[number % len(kinds)]
        name = f"{number:03d}{source.suffix}"
        (tmp_path / name).write_bytes(damage(source.read_bytes(), number % 6, generator))
        if number % 6 > 3:
            whole.add(number)
        lines.append(f"{name} {number % CLASSES}\n")
    (tmp_path / "train.txt").write_text("".join(lines))
    config = DataConfig(
        root=str(tmp_path), num_frames=4, stride=8, img_size=32, short_side=[32, 40], max_unreadable=1.0
    )
    loader = build_loader(build_dataset(config, "train"), batch_size=10, workers=2)
    batches = 0
    with caplog.at_level(logging.WARNING, "stvideo.data"):
        for epoch in range(2):
            loader.set_epoch(epoch)
            for batch in loader:
                batches += 1
                assert batch["video"].shape == (10, 3, 4, 32, 32)
                assert batch["label"].tolist() == [number % CLASSES for number in batch["index"].tolist()]
                assert loader.unreadable.keys().isdisjoint(batch["index"].tolist())
    assert batches == 2 * FILES // 10
    assert loader.unreadable.keys().isdisjoint(whole)
    assert len(loader.unreadable) > FILES // 6  # the noise, at least
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == len(set(messages)) == len(loader.unreadable)
    assert not any("\n" in message for message in messages)
