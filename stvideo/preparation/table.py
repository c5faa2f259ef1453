"""Keep a CSV file that grows by a line per finished file and survives being cut off anywhere.

Rows are written in one call each: after ``kill -9`` at most the last line is torn, and it is dropped when the table is
opened again. Of several lines about one file the last counts; `Table.finish` leaves one each.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Generic

from stvideo.core.errors import StvideoError
from stvideo.core.files import replacing
from stvideo.data.lists.manifest import Row
from stvideo.preparation.terminal import progress

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


class Table(Generic[Row]):
    """The rows by the name in their first column, and the open file.

    Raises:
        StvideoError: the file cannot be written, is something else, or is being written by another process.
    """

    def __init__(self, path: Path, kind: type[Row]) -> None:
        self.path, self.kind = path, kind
        self.rows: dict[str, Row] = {}
        self._heading = line_of(kind.columns())
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists() and not path.is_file():
                raise StvideoError(f"{path}: this is no file; name another output")
            self._file: BinaryIO = path.open("ab", buffering=0)
        except OSError as error:
            raise self._unwritable(error.strerror) from None
        try:
            self._lock()
            self._read()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Table[Row]:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def complete(
        self,
        title: str,
        names: Sequence[str],
        is_known: Callable[[Row], bool],
        is_bad: Callable[[Row], bool],
        work: Callable[[list[str]], Iterable[Row]],
    ) -> list[Row]:
        """Show the progress of ``work(names)`` on those without a row that ``is_known``; returns a row for each name.

        A row is written before ``work`` is asked for the next one. At last the file has one line per name, in order.
        """
        todo = [name for name in names if name not in self.rows or not is_known(self.rows[name])]
        if len(todo) < len(names):
            print(f"{self.path}: {len(names) - len(todo):,} of {len(names):,} are in it already", file=sys.stderr)
        if todo:
            known = set(names) - set(todo)
            with progress(len(todo), title, sum(is_bad(self.rows[name]) for name in known)) as step:
                for row in work(todo):
                    self.add(row)
                    step(is_bad(row))
        self.finish(names)
        return [self.rows[name] for name in names]

    def add(self, row: Row) -> None:
        """Write one more line; it is with the operating system when this returns."""
        self._write(line_of(row.row()))
        self.rows[row.row()[0]] = row

    def finish(self, order: Iterable[str]) -> None:
        """Rewrite the file with one line per name: those in ``order`` first, then the others as they came."""
        names = [name for name in dict.fromkeys([*order, *self.rows]) if name in self.rows]
        try:
            with replacing(self.path) as temporary, temporary.open("wb") as file:
                file.write(self._heading)
                file.writelines(line_of(self.rows[name].row()) for name in names)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise self._unwritable(error.strerror) from None

    def _write(self, line: bytes) -> None:
        try:
            written = self._file.write(line)
        except OSError as error:
            raise self._unwritable(error.strerror) from None
        if written != len(line):
            raise self._unwritable("is the disk full?")

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
        whole = 0  # bytes up to the end of the last line that is not torn
        with self.path.open("rb") as file:
            if not self._heading.startswith(file.read(len(self._heading))):
                heading = ",".join(self.kind.columns())[:60]
                raise StvideoError(
                    f"{self.path}: this is another kind of file (it does not start with {heading}...); "
                    "name another output"
                )
            file.seek(0)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                # Lines that a crash of the machine left behind, and the heading, are no rows.
                with contextlib.suppress(ValueError, csv.Error):
                    fields = next(csv.reader([line.decode("utf-8", "surrogateescape")], strict=True), [])
                    self.rows[fields[0] if fields else ""] = self.kind.from_row(fields)
        self._file.truncate(whole)
        if not whole:
            self._write(self._heading)

    def _unwritable(self, reason: str | None) -> StvideoError:
        return StvideoError(f"{self.path}: cannot be written ({reason})")


def line_of(fields: Sequence[Any]) -> bytes:
    """Encode one line of CSV, its end included. No field may hold a line break."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(fields)
    return text.getvalue().encode("utf-8", "surrogateescape")
