"""Read text files that people hand over: regular files in UTF-8, errors with the line."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from stvideo.core.errors import StvideoError

LONGEST_LINE = 20_000  # characters; paths have up to 4096
SHOWN = 80  # characters of a wrong word that an error repeats


@contextmanager
def opened(path: Path) -> Iterator[TextIO]:
    """Open ``path`` for reading; raises `StvideoError` if it is no regular file, unreadable or not in UTF-8."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise StvideoError(f"{path}: this is a folder, a file is expected")
        if not stat.S_ISREG(mode):  # reading it might never end
            raise StvideoError(f"{path}: this is a pipe or a device, a file is expected")
        with path.open(encoding="utf-8-sig") as file:
            yield file
    except FileNotFoundError:
        raise StvideoError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise StvideoError(f"{path}:{_undecodable_line(path)}: not UTF-8; save the file in this encoding") from None
    except OSError as error:
        raise StvideoError(f"{path}: cannot be read ({error.strerror})") from None


def read_text(path: Path) -> str:
    """Read the whole file; raises `StvideoError`."""
    with opened(path) as file:
        return file.read()


def read_lines(path: Path) -> Iterator[str]:
    """Read the lines one by one, with their ends; raises `StvideoError`, for lines without end too."""
    with opened(path) as file:
        for number, line in enumerate(file, 1):
            if len(line) > LONGEST_LINE:
                raise StvideoError(f"{path}:{number}: a line of {len(line):,} characters; this is no list")
            yield line


def read_start(path: Path, characters: int = 4096) -> str:
    """Read how a file begins, however long its lines are; raises `StvideoError`."""
    with opened(path) as file:
        return file.read(characters)


def read_json(path: Path) -> Any:
    """Read a JSON file; raises `StvideoError`, with the line if it is not JSON."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise StvideoError(f"{path}:{error.lineno}: not valid JSON ({error.msg})") from None
    except StvideoError:
        raise
    except (RecursionError, ValueError) as error:  # nested too deeply, or a number without end
        raise StvideoError(f"{path}: not JSON that can be read ({error})") from None


def shown(text: str) -> str:
    """Quote ``text`` for an error, its beginning if it is long."""
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}...")


def _undecodable_line(path: Path) -> int:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 1
