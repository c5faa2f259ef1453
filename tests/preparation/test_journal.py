"""The journal: nothing that was written is lost, a torn line is, and nobody else's file is touched."""

import pytest

from stvideo.core.errors import StvideoError
from stvideo.preparation.journal import Journal

COLUMNS = ("path", "status", "reason")


def write(path, *rows):
    with Journal(path, COLUMNS) as journal:
        for row in rows:
            journal.add(row)


def test_the_last_line_about_a_name_counts(tmp_path):
    path = tmp_path / "below" / "j.csv"
    odd = 'a, "b" – c\udce9.mp4'  # a comma, quotes, and a byte that is not UTF-8
    write(path, ("x.mp4", "bad", "first"), (odd, "ok", ""), ("x.mp4", "ok", "second, later"))
    with Journal(path, COLUMNS) as journal:
        assert len(journal) == 2
        assert journal.get("x.mp4") == ["x.mp4", "ok", "second, later"]
        assert journal.get(odd) == [odd, "ok", ""]
        assert journal.get("other") is None
        journal.finish([odd])
    lines = path.read_bytes().splitlines()
    assert len(lines) == 3 and lines[0] == b"path,status,reason" and lines[2].startswith(b"x.mp4,ok")


@pytest.mark.parametrize("cut", range(1, 30))
def test_a_torn_last_line_is_dropped_and_written_over(tmp_path, cut):
    path = tmp_path / "j.csv"
    write(path, ("a", "ok", ""), ("b", "ok", '"so, so"'))
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    write(path, ("c", "ok", ""))
    with Journal(path, COLUMNS) as journal:
        assert journal.get("c") == ["c", "ok", ""]
        assert journal.get("a") == (
            ["a", "ok", ""] if cut <= len(whole) - len(b"path,status,reason\na,ok,\n") else None
        )
        assert journal.get("b") is None
    assert path.read_bytes().startswith(b"path,status,reason\n")


def test_lines_that_a_crash_of_the_machine_left_behind_are_passed_over(tmp_path):
    path = tmp_path / "j.csv"
    write(path, ("a", "ok", ""))
    with path.open("ab") as file:
        file.write(b"\0\0\0\0\n")
    write(path, ("b", "ok", ""))
    with Journal(path, COLUMNS) as journal:
        assert journal.get("a") and journal.get("b") and len(journal) == 2


def test_other_files_and_other_writers_are_refused(tmp_path):
    other = tmp_path / "notes.txt"
    other.write_text("do not lose me\n")
    with pytest.raises(StvideoError, match="another kind of file"):
        Journal(other, COLUMNS)
    assert other.read_text() == "do not lose me\n"
    with Journal(tmp_path / "j.csv", COLUMNS), pytest.raises(StvideoError, match="another process is writing it"):
        Journal(tmp_path / "j.csv", COLUMNS)
    with pytest.raises(StvideoError, match="cannot be written"):
        Journal(other / "j.csv", COLUMNS)
