"""Files: whether they are there, and writing them so that a crash leaves the old one or the new one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from stvideo.core.errors import StvideoError


def exists(path: str | Path) -> bool:
    """Tell whether a file or folder exists, for any text, where `Path.exists` raises on long ones."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a name beside ``path`` to write to: renamed to it when the block ends, removed when it fails.

    Raises:
        StvideoError: the file cannot be written (an OSError inside the block).
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise StvideoError(f"{path}: cannot be written: {error.strerror or error}") from error
        raise


def write_atomically(path: Path, text: str) -> None:
    """Write ``text`` (UTF-8, line ends as they are) beside ``path`` and rename it; raises StvideoError."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")
