"""Small folders laid out as people have them after a download."""

from pathlib import Path


def touch(root: Path, *names: str, content: bytes = b"x") -> Path:
    """Files of that content below ``root``."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
