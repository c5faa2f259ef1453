"""A CSV file that grows by a line per finished piece of work and survives being cut off anywhere.

The first column names the piece. Of several lines with one name the last counts, so work can be done again by adding to
the file; `Journal.finish` leaves one line each. Rows are written in one call each: after ``kill -9`` at most the last
line is torn, and it is dropped when the journal is opened again.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from stvideo.core.errors import StvideoError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


class Journal:
    """The open file. Lines are kept as text, which is small, and taken apart when asked for.

    Raises:
        StvideoError: the file cannot be written, is something else, or is being written by another process.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path, self.columns = path, tuple(columns)
        self._lines: dict[str, str] = {}
        self._header = encode_row(columns)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO = path.open("a+b", buffering=0)
        except OSError as error:
            raise StvideoError(f"{path}: cannot be written ({error.strerror})") from None
        try:
            self._lock()
            self._read()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._lines)

    def get(self, name: str) -> list[str] | None:
        """The fields of the last line about ``name``."""
        line = self._lines.get(name)
        return None if line is None else next(csv.reader([line]))

    def add(self, fields: Sequence[Any]) -> None:
        """One more line; it is with the operating system when this returns."""
        line = encode_row(fields)
        data = line.encode("utf-8", "surrogateescape")
        try:
            written = self._file.write(data)
        except OSError as error:
            raise StvideoError(f"{self.path}: cannot be written ({error.strerror})") from None
        if written != len(data):
            raise StvideoError(f"{self.path}: cannot be written (is the disk full?)")
        self._lines[str(fields[0])] = line

    def finish(self, order: Iterable[str]) -> None:
        """Rewrite the file with one line per name: those in ``order`` first, then the others as they came."""
        temporary = self.path.with_name(f".{self.path.name}.part")
        names = dict.fromkeys(order)
        try:
            with temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
                file.write(self._header)
                file.writelines(self._lines[name] for name in names if name in self._lines)
                file.writelines(line for name, line in self._lines.items() if name not in names)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
        except OSError as error:
            raise StvideoError(f"{self.path}: cannot be written ({error.strerror})") from None

    def close(self) -> None:
        self._file.close()

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StvideoError(f"{self.path}: another process is writing it; wait for that one or end it") from None
        except OSError:  # not every network file system has locks
            pass

    def _read(self) -> None:
        self._file.seek(0)
        content = self._file.read()
        whole = content[: content.rfind(b"\n") + 1]
        if content and not self._header.encode().startswith(content[: len(self._header)]):
            raise StvideoError(
                f"{self.path}: this is another kind of file (it does not start with {self._header.strip()[:60]}...); "
                "name another output"
            )
        if not whole:
            self._file.truncate(0)
            self._file.write(self._header.encode())
            return
        if len(whole) < len(content):
            self._file.truncate(len(whole))
        del content
        for line in io.StringIO(whole.decode("utf-8", "surrogateescape"), newline="\n"):
            with contextlib.suppress(csv.Error, StopIteration):
                fields = next(csv.reader([line], strict=True))
                if len(fields) == len(self.columns):  # else a line that a crash of the machine left behind
                    self._lines[fields[0]] = line
        self._lines.pop(self.columns[0], None)


def encode_row(fields: Sequence[Any]) -> str:
    """One line of CSV, its end included. No field may hold a line break."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(fields)
    return text.getvalue()
