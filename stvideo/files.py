"""Files: whether they are there, and writing them so that a crash leaves the old one or the new one."""

from __future__ import annotations

import contextlib
from pathlib import Path


def exists(path: str | Path) -> bool:
    """Whether there is such a file or folder. Any text may be asked about, where `Path.exists` raises on long ones."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def write_atomically(path: Path, text: str) -> None:
    """Write ``text`` (UTF-8, line ends as they are) beside ``path`` and rename it; raises OSError."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            file.write(text)
        temporary.replace(path)
    except OSError:  # a full disk, say: leave no half of a file behind
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
