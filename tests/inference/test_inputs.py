"""Files, folders, patterns and lists become videos; failures are counted."""

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stvideo.core.errors import StvideoError
from stvideo.inference.inputs import collect_videos, for_each, output_names
from stvideo.settings import cli
from stvideo.settings.config import Config
from tests.properties import unhurried


@pytest.fixture
def tree(tmp_path, monkeypatch) -> Path:
    for name in ("a.mp4", "b.WEBM", "notes.txt", "._a.mp4", "deep/c.mkv", "odd[1].mp4"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(paths: list[Path]) -> list[str]:
    return [str(p) for p in paths]


def test_files_folders_patterns_and_lists(tree):
    assert names(collect_videos(["a.mp4", "notes.txt", "missing.mp4"], "x")) == ["a.mp4", "notes.txt", "missing.mp4"]
    assert names(collect_videos(["."], "x")) == ["a.mp4", "b.WEBM", "odd[1].mp4", "deep/c.mkv"]
    assert names(collect_videos(["*.mp4"], "x")) == ["a.mp4", "odd[1].mp4"]
    assert names(collect_videos(["**/*.mkv", "d*"], "x")) == ["deep/c.mkv"]
    assert names(collect_videos(["odd[1].mp4"], "x")) == ["odd[1].mp4"]
    assert names(collect_videos(["a.mp4", "a.mp4"], "x")) == ["a.mp4"]


@pytest.mark.parametrize(
    "content,found",
    [
        (b"a.mp4\r\n\r\nb c.mp4\r\n", ["a.mp4", "b c.mp4"]),
        (b"caf\xe9.mp4\n", ["caf\udce9.mp4"]),
        (b"  a.mp4 \n", ["a.mp4"]),
    ],
)
def test_lists_of_other_systems_and_names_in_any_bytes(monkeypatch, content, found):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))
    assert names(collect_videos(["-"], "x")) == found


def test_arguments_that_no_file_can_be_called():
    (override,) = cli.split_arguments(["data.root=" + "x" * 5000])[1]
    assert override.startswith("data.root=")


def test_a_file_whose_name_looks_like_an_option_is_a_file(tree):
    (tree / "--clip.mp4").touch()
    assert cli.split_arguments(["--clip.mp4"])[0] == ["--clip.mp4"]


def test_long_names_leave_room_for_what_is_appended():
    paths = [Path("視" * 84 + ".mp4"), Path("視" * 83 + "a.mp4")]
    chosen = [name.encode() for name in output_names(paths).values()]
    assert len(set(chosen)) == 2 and max(map(len, chosen)) < 220


@pytest.mark.parametrize(
    "arguments,message",
    [
        ([], "no video given"),
        (["a.mp4", ""], "no video given"),
        (["deep/none*"], "no file matches"),
        (["-"], "standard input: no video path"),
    ],
)
def test_nothing_found_is_an_error(tree, monkeypatch, arguments, message):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    with pytest.raises(StvideoError, match=message):
        collect_videos(arguments, "x")


def test_output_names_differ_even_where_only_the_case_differs():
    videos = [Path(p) for p in ("/a/x.mp4", "/b/X.mp4", "/b/x.avi", "/b/x.mkv", "/c/b/x.mkv", "/c/y.mp4", ".mp4")]
    chosen = output_names(videos)
    assert list(chosen.values()) == ["a_x", "b_X", "b_x_avi", "b_x_mkv", "b_x_2", "y", ".mp4"]


@unhurried
@given(st.lists(st.from_regex(r"(/[ab]){1,2}/[xXy](_2|_a)?\.(mp4|a)", fullmatch=True), unique=True))
def test_output_names_never_collide(paths):
    chosen = output_names([Path(p) for p in paths])
    assert len({name.lower() for name in chosen.values()}) == len(paths)


def test_exit_status(capsys):
    def fail_on_b(path: Path) -> None:
        if path.name == "b":
            raise StvideoError("b: broken")

    assert for_each([Path("a")], fail_on_b, "done", Config()) == 0
    assert for_each([Path("a"), Path("b"), Path("c")], fail_on_b, "done", Config()) == 1
    assert capsys.readouterr().err.splitlines() == [
        "stvideo: error: b: broken",
        "stvideo: warning: 2 of 3 videos done, 1 failed (see above)",
    ]
    with pytest.raises(StvideoError, match="b: broken"):
        for_each([Path("b")], fail_on_b, "done", Config())
