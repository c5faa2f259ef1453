"""The table: nothing that was written is lost, a torn line is, and nobody else's file is touched."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from stvideo.core.errors import StvideoError
from stvideo.data.lists.manifest import CsvRow
from stvideo.preparation.table import Table


@dataclass(frozen=True)
class Line(CsvRow):
    path: str
    frames: int
    reason: str = ""


def write(path, *rows):
    with Table(path, Line) as table:
        for row in rows:
            table.add(row)


def test_the_last_line_about_a_name_counts(tmp_path):
    path = tmp_path / "below" / "j.csv"
    odd = 'a, "b" – c\udce9.mp4'  # a comma, quotes, and a byte that is not UTF-8
    second = Line("x.mp4", 2, "second, later")
    write(path, Line("x.mp4", 1, "first"), Line(odd, 3), second)
    with Table(path, Line) as table:
        assert table.rows == {"x.mp4": second, odd: Line(odd, 3)}
        table.finish([odd, "unknown"])
    lines = path.read_bytes().splitlines()
    assert len(lines) == 3 and lines[0] == b"path,frames,reason" and lines[2].startswith(b"x.mp4,2")


@pytest.mark.parametrize("cut", range(1, 30))
def test_a_torn_last_line_is_dropped_and_written_over(tmp_path, cut):
    path = tmp_path / "j.csv"
    write(path, Line("a", 1), Line("b", 2, '"so, so"'))
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    write(path, Line("c", 3))
    kept = [Line("a", 1)] if cut <= len(whole) - len(b"path,frames,reason\na,1,\n") else []
    with Table(path, Line) as table:
        assert list(table.rows.values()) == [*kept, Line("c", 3)]
    assert path.read_bytes().startswith(b"path,frames,reason\n")


@pytest.mark.parametrize("left", [b"\0\0\0\0\n", b'"x,1,\n', b"x,many,\n", b"\n"])
def test_lines_that_a_crash_of_the_machine_left_behind_are_passed_over(tmp_path, left):
    path = tmp_path / "j.csv"
    write(path, Line("a", 1))
    with path.open("ab") as file:
        file.write(left)
    write(path, Line("b", 2))
    with Table(path, Line) as table:
        assert set(table.rows) == {"a", "b"}


def test_other_files_and_other_writers_are_refused(tmp_path):
    other = tmp_path / "notes.txt"
    other.write_text("do not lose me\n")
    with pytest.raises(StvideoError, match="another kind of file"):
        Table(other, Line)
    assert other.read_text() == "do not lose me\n"
    with Table(tmp_path / "j.csv", Line), pytest.raises(StvideoError, match="another process is writing it"):
        Table(tmp_path / "j.csv", Line)
    with pytest.raises(StvideoError, match="cannot be written"):
        Table(other / "j.csv", Line)
