"""Files appear whole or not at all."""

import pytest

from stvideo.core.errors import StvideoError
from stvideo.core.files import exists, replacing, write_atomically


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.txt"
    write_atomically(target, "old\r\n")
    message = r"a\.txt: cannot be written: the disk is full"
    with pytest.raises(StvideoError, match=message), replacing(target) as temporary:
        temporary.write_text("ne")
        raise OSError("the disk is full")
    assert target.read_bytes() == b"old\r\n" and list(tmp_path.iterdir()) == [target]


def test_a_folder_of_that_name_is_left_alone(tmp_path):
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(StvideoError, match="Is a directory"):
        write_atomically(tmp_path / "a.txt", "text")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("path", ["x" * 5000, "a\0b", "none"])
def test_no_path_is_too_odd_to_be_asked_about(path):
    assert not exists(path)
