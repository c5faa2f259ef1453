"""Every kind of annotation that people have, and one clear line for each way in which it can be wrong."""

import json
import math
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stvideo.core.errors import StvideoError
from stvideo.data.lists.annotations import read_annotations
from stvideo.data.lists.disk import video_files
from stvideo.data.lists.index import VideoIndex
from stvideo.data.lists.listfiles import read_classes, read_list

CLASSES = ["archery", "arm wrestling", "zumba"]


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


# --- list files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.mp4 0\nb/c.mp4 2\n", [("a.mp4", 0), ("b/c.mp4", 2)]),
        ("a.mp4,0\nb/c.mp4,2\n", [("a.mp4", 0), ("b/c.mp4", 2)]),
        ("a.mp4\t0\nb/c.mp4\t2\n", [("a.mp4", 0), ("b/c.mp4", 2)]),
        ("# comment\n\na.mp4   0\n\r\n", [("a.mp4", 0)]),
        ('"my videos/a b.mp4" 1\nplain.mp4 0\n', [("my videos/a b.mp4", 1), ("plain.mp4", 0)]),
        ("my videos/a b.mp4 1\n", [("my videos/a b.mp4", 1)]),
        ("my videos/a b.mp4\t1\n", [("my videos/a b.mp4", 1)]),
        ('"a, b.mp4",1\nc.mp4,0\n', [("a, b.mp4", 1), ("c.mp4", 0)]),
        ("./a.mp4 0\n./b/c.mp4 2\n", [("a.mp4", 0), ("b/c.mp4", 2)]),
        ('" a.mp4 " 0\n', [(" a.mp4 ", 0)]),
        ("path,label\na.mp4,0\n", [("a.mp4", 0)]),
        ("path label\na.mp4 0\n", [("a.mp4", 0)]),
        ("a.mp4,arm wrestling\n", [("a.mp4", 1)]),
        ("a.mp4\tarm wrestling\nb.mp4\tzumba\n", [("a.mp4", 1), ("b.mp4", 2)]),
        ("\ufeffa.mp4 0\n", [("a.mp4", 0)]),
        ("été/día ☃.mp4 1\n", [("été/día ☃.mp4", 1)]),
    ],
)
def test_lists_in_every_common_form(tmp_path, text, expected):
    index = read_list(write(tmp_path / "list.txt", text), tmp_path, CLASSES)
    assert [(index.path(i), int(index.labels[i])) for i in range(len(index))] == expected
    assert index.span(0) == (None, None)


def test_absolute_paths_inside_the_root_become_relative(tmp_path):
    index = read_list(write(tmp_path / "list.txt", f"{tmp_path}/x/a.mp4 0\n"), tmp_path, CLASSES)
    assert index.paths() == ["x/a.mp4"]


@pytest.mark.parametrize(
    "name", [".//x/a.mp4", "./x/./a.mp4", "x//a.mp4", "x/a.mp4/", "x/./a.mp4", ".///./x//a.mp4", "{root}//x/./a.mp4"]
)
def test_every_spelling_of_a_path_is_the_same_video(tmp_path, name):
    path = write(tmp_path / "list.txt", f"x/a.mp4 0\n{name.format(root=tmp_path)} 0\n")
    index = read_list(path, tmp_path, CLASSES)
    assert index.paths() == ["x/a.mp4", "x/a.mp4"]
    assert "entries that repeat others: 1" in index.notes[0]
    write(path, f"x/a.mp4 0\n{name.format(root=tmp_path)} 1\n")
    with pytest.raises(StvideoError, match=r"list\.txt:2: x/a\.mp4 is in classes"):
        read_list(path, tmp_path, CLASSES)


@pytest.mark.parametrize("name", [".//etc/passwd", ".///etc/passwd", "././/etc/passwd"])
def test_dots_before_an_absolute_path_do_not_lead_out_of_the_root(tmp_path, name):
    (path,) = read_list(write(tmp_path / "list.txt", f"{name} 0\n"), tmp_path, CLASSES).paths()
    assert path == "etc/passwd"
    assert (tmp_path / path).is_relative_to(tmp_path)


def test_optional_columns_trim_the_video(tmp_path):
    index = read_list(write(tmp_path / "l.txt", "a.mp4 0 3.5 7\nb.mp4 1\nc.mp4 2 0 1.25\n"), tmp_path, CLASSES)
    assert [index.span(i) for i in range(3)] == [(3.5, 7.0), (None, None), (0.0, 1.25)]
    index = read_list(write(tmp_path / "l.csv", "a.mp4,0,,7\nb.mp4,1,2,\n"), tmp_path, CLASSES)
    assert [index.span(i) for i in range(2)] == [(None, 7.0), (2.0, None)]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a.mp4 0\nb.mp4\n", 2, "1 columns.*path label"),
        ("a.mp4 0\nb.mp4 1 2\n", 2, "3 columns.*quote"),
        ("a.mp4 0\n\n# x\nb.mp4 3\n", 4, r"class 3 is outside 0 \.\. 2"),
        ("a.mp4 -1\n", 1, "negative"),
        ("a.mp4,arm wrestlin\n", 1, "not in the class list.*did you mean 'arm wrestling'"),
        ("../a.mp4 0\n", 1, "outside the data root"),
        ("x/../../a.mp4 0\n", 1, "outside the data root"),
        ("/etc/passwd 0\n", 1, "outside the data root"),
        ("//etc/passwd 0\n", 1, "outside the data root"),
        ("/etc/./passwd 0\n", 1, "outside the data root"),
        ("./../a.mp4 0\n", 1, "outside the data root"),
        ("x/.. 0\n", 1, "outside the data root"),
        ("././ 0\n", 1, "outside the data root"),
        (f"a.mp4 {'9' * 6000}\n", 1, "outside 0"),
        ("~/a.mp4 0\n", 1, "outside the data root"),
        ('a.mp4 0\n"b.mp4 1\n', 2, "quotes"),
        (",1\n", 1, "path is empty"),
        ("a.mp4 0 9 3\n", 1, "cut from 9 s to 3 s"),
        ("a.mp4 0 x 3\n", 1, "seconds"),
    ],
)
def test_bad_lines_are_named(tmp_path, text, line, message):
    path = write(tmp_path / "list.txt", text)
    with pytest.raises(StvideoError, match=rf"list\.txt:{line}: .*{message}") as raised:
        read_list(path, tmp_path, CLASSES)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "empty"), (b"# only\n\n", "empty"), (b"\xff\xfe\x00a", "UTF-8"), (b"path label\n", "empty")],
)
def test_lists_without_content_are_refused(tmp_path, content, message):
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(StvideoError, match=message):
        read_list(tmp_path / "list.txt", tmp_path, CLASSES)


def test_a_list_in_another_encoding_names_the_line(tmp_path):
    (tmp_path / "list.txt").write_bytes(b"a.mp4 0\n" * 20_000 + "caf\xe9.mp4 0\n".encode("latin-1"))
    with pytest.raises(StvideoError, match=r"list\.txt:20001: not UTF-8"):
        read_list(tmp_path / "list.txt", tmp_path, CLASSES)


@pytest.mark.parametrize("line", ["{long}.mp4 0", "a.mp4 {long}", "a.mp4 {long} 3", "/{long} 0", "{long}"])
@pytest.mark.parametrize("length", [3000, 1_000_000])
def test_a_long_line_is_not_repeated_in_the_error(tmp_path, line, length):
    path = write(tmp_path / "list.txt", f"b.mp4 0\n{line.format(long='x' * length)}\n")
    try:
        read_list(path, tmp_path, CLASSES)
    except StvideoError as error:
        assert len(str(error)) < 500 and "list.txt:2" in str(error)
    else:
        assert length == 3000 and line.startswith("{long}.mp4")


@pytest.mark.parametrize("name", ["list.txt", "train.csv", "train.json", "classes.txt"])
def test_what_is_no_file_is_refused_before_it_is_read(tmp_path, name):
    os.mkfifo(tmp_path / name)
    read = read_classes if name == "classes.txt" else lambda path: read_annotations(path, tmp_path)
    with pytest.raises(StvideoError, match=f"{name}: this is a pipe or a device"):
        read(tmp_path / name)
    with pytest.raises(StvideoError, match="/dev/zero: this is a pipe or a device"):
        read(Path("/dev/zero"))


def test_names_need_a_class_list(tmp_path):
    with pytest.raises(StvideoError, match=r"list\.txt:1.*data\.classes"):
        read_list(write(tmp_path / "list.txt", "a.mp4 zumba\n"), tmp_path)


def test_classes_beside_the_list_are_found(tmp_path):
    write(tmp_path / "classes.txt", "\n".join(CLASSES) + "\n")
    index = read_annotations(write(tmp_path / "train.txt", "a.mp4 2\n"), tmp_path)
    assert index.classes == CLASSES
    assert read_classes(tmp_path / "classes.txt") == CLASSES


def test_numbers_name_themselves_without_class_names(tmp_path):
    assert read_list(write(tmp_path / "l.txt", "a.mp4 2\n"), tmp_path).classes == ["0", "1", "2"]


@pytest.mark.parametrize(("text", "message"), [("", "no class names"), ("a\nb\na\n", "'a' is named twice")])
def test_bad_class_lists(tmp_path, text, message):
    with pytest.raises(StvideoError, match=message):
        read_classes(write(tmp_path / "classes.txt", text))


@given(
    st.lists(
        st.tuples(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), st.integers(0, 99)), min_size=1
    )
)
def test_the_index_keeps_every_path_and_label(videos):
    index = VideoIndex.build([path for path, _ in videos], [label for _, label in videos], ["x"] * 100)
    assert index.paths() == [path for path, _ in videos]
    assert index.labels.tolist() == [label for _, label in videos]
    keep = np.arange(len(videos))[::2]
    assert index.select(keep).paths() == index.paths()[::2]
    assert index.digest() != VideoIndex.build(["other"], [0], ["x"]).digest()


def test_selecting_keeps_the_spans():
    index = VideoIndex.build(["a", "b", "c"], [0, 1, 2], CLASSES, [(math.nan, math.nan), (1.0, 2.0), (3.0, math.nan)])
    kept = index.select(np.array([2, 1]))
    assert [kept.span(0), kept.span(1)] == [(3.0, None), (1.0, 2.0)]
    assert kept.paths() == ["c", "b"]


def test_a_large_list_is_held_in_little_memory(tmp_path):
    count = 20_000
    lines = [f"train/some class name {i % 400}/abcdefghijk_{i:06d}_{i + 10:06d}.mp4\t{i % 400}\n" for i in range(count)]
    path = write(tmp_path / "list.txt", "".join(lines))
    tracemalloc.start()
    index = read_list(path, tmp_path)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(index) == count
    assert kept < 100 * count  # bytes: the names themselves, and a few numbers each
    assert index.path(17_777).endswith("_017777_017787.mp4")


# --- folders of classes --------------------------------------------------------------------------------------------


def test_folders_of_classes(tmp_path):
    touch(tmp_path / "train/zumba/b.mp4", tmp_path / "train/zumba/deep/a.webm", tmp_path / "train/archery/1.AVI")
    touch(tmp_path / "train/zumba/._b.mp4", tmp_path / "train/zumba/notes.txt", tmp_path / "train/.hidden/x.mp4")
    index = read_annotations(tmp_path / "train", tmp_path)
    assert index.classes == ["archery", "zumba"]
    assert index.paths() == ["train/archery/1.AVI", "train/zumba/b.mp4", "train/zumba/deep/a.webm"]
    assert index.labels.tolist() == [0, 1, 1]


def test_folders_follow_the_given_class_order_and_report_empty_ones(tmp_path):
    touch(tmp_path / "zumba/a.mp4", tmp_path / "arm_wrestling/b.mp4")
    (tmp_path / "archery").mkdir()
    index = read_annotations(tmp_path, tmp_path, CLASSES)
    assert dict(zip(index.paths(), index.labels.tolist(), strict=True)) == {"arm_wrestling/b.mp4": 1, "zumba/a.mp4": 2}
    assert index.notes == ["class 'archery' has no video"]


def test_folders_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(StvideoError, match="no class folders"):
        read_annotations(tmp_path, tmp_path)
    (tmp_path / "archery").mkdir()
    with pytest.raises(StvideoError, match="no videos"):
        read_annotations(tmp_path, tmp_path)
    touch(tmp_path / "archry/x.mp4")
    with pytest.raises(StvideoError, match=r"archry.*did you mean 'archery'"):
        read_annotations(tmp_path, tmp_path, CLASSES)
    with pytest.raises(StvideoError, match="outside the data root"):
        read_annotations(tmp_path, tmp_path / "archery")


def test_video_files_come_in_a_fixed_order(tmp_path):
    touch(*(tmp_path / name for name in ("b/2.mp4", "a/z.mp4", "a/b/c.mkv", "top.mov", "b/1.mp4")))
    assert list(video_files(tmp_path)) == ["top.mov", "a/z.mp4", "a/b/c.mkv", "b/1.mp4", "b/2.mp4"]


# --- Kinetics ------------------------------------------------------------------------------------------------------

HEADING = "label,youtube_id,time_start,time_end,split\n"


def test_kinetics_csv_joined_with_the_disk(tmp_path):
    csv = write(
        tmp_path / "k400.csv",
        HEADING
        + '"arm wrestling",--x,5,15,train\n'  # in a class folder, with its times
        + "archery,a1,0,10,train\n"  # the bare id
        + "zumba,gone,3,13,train\n"  # not on disk
        + "zumba,v1,3,13,validate\n",
    )
    touch(tmp_path / "videos/arm_wrestling/--x_000005_000015.mp4", tmp_path / "videos/a1.mkv")
    touch(tmp_path / "videos/v1_000003_000013.mp4", tmp_path / "videos/._gone_000003_000013.mp4")
    train = read_annotations(csv, tmp_path, split="train")
    assert train.paths() == ["videos/arm_wrestling/--x_000005_000015.mp4", "videos/a1.mkv"]
    assert [train.classes[label] for label in train.labels] == ["arm wrestling", "archery"]
    assert "1 of 3 videos (33.3%) are not on disk (most: zumba 1)" in train.notes[0]
    val = read_annotations(csv, tmp_path, train.classes, split="val")
    assert (val.paths(), val.labels.tolist()) == (["videos/v1_000003_000013.mp4"], [2])


def test_the_copy_in_the_right_folder_is_taken(tmp_path):
    csv = write(tmp_path / "val.csv", HEADING + "zumba,v1,3,13,val\n")
    touch(tmp_path / "train/archery/v1_000003_000013.mp4", tmp_path / "val/zumba/v1_000003_000013.mp4")
    assert read_annotations(csv, tmp_path).paths() == ["val/zumba/v1_000003_000013.mp4"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADING, "no videos in it"),
        (HEADING + "zumba,v1,3\n", r"k\.csv:2: 5 columns"),
        (HEADING + "zumba,v1,3,13,train\nzumba,v2,x,13,train\n", r"k\.csv:3: .*seconds"),
        (HEADING + "zumbaa,v1,3,13,train\n", r"k\.csv:2: label 'zumbaa' .*did you mean 'zumba'"),
        ("youtube_id,time_start,time_end,split\nv1,3,13,test\n", r"k\.csv:2: no label.*test split"),
        (HEADING + "zumba,v9,3,13,train\n", "none of its 1 videos"),
    ],
)
def test_bad_kinetics_csvs(tmp_path, text, message):
    touch(tmp_path / "v1_000003_000013.mp4")
    with pytest.raises(StvideoError, match=message):
        read_annotations(write(tmp_path / "k.csv", text), tmp_path, CLASSES)


# --- Something-Something -------------------------------------------------------------------------------------------

LABELS = {"Holding something": "1", "Bending something so that it deforms": "0", "Putting something on a surface": "2"}


@pytest.fixture
def something(tmp_path):
    (tmp_path / "labels.json").write_text(json.dumps(LABELS))
    touch(tmp_path / "20bn/74225.webm", tmp_path / "20bn/9.webm")
    return tmp_path


def entry(number, template="Putting [something] on a surface"):
    return {"id": str(number), "label": "putting a cup on a table", "template": template, "placeholders": ["a cup"]}


def test_something_something_json(something):
    (something / "train.json").write_text(json.dumps([entry(74225), entry(9, "Holding [something]"), entry(10)]))
    index = read_annotations(something / "train.json", something)
    assert index.classes == [
        "Bending something so that it deforms",
        "Holding something",
        "Putting something on a surface",
    ]
    assert (index.paths(), index.labels.tolist()) == (["20bn/74225.webm", "20bn/9.webm"], [2, 1])
    assert "1 of 3 videos (33.3%)" in index.notes[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "JSON list"),
        ("{}", "JSON list"),
        ("[1,\n}", r"train\.json:2: not valid JSON"),
        ("[" * 100_000, r"train\.json: not JSON that can be read"),
        (json.dumps([entry(9), {"id": "9"}]), "entry 1.*test split"),
        (json.dumps([entry(9, "Holdin [something]")]), "entry 0.*did you mean 'Holding something'"),
        (json.dumps([entry(11)]), "none of its 1 videos"),
    ],
)
def test_bad_something_something_json(something, content, message):
    with pytest.raises(StvideoError, match=message):
        read_annotations(write(something / "train.json", content), something)


@pytest.mark.parametrize(
    ("content", "message"), [("[]", "JSON object"), ('{"a": "x"}', "numbers"), ('{"a": "0", "b": "2"}', r"0 \.\. 1")]
)
def test_bad_something_something_labels(tmp_path, content, message):
    with pytest.raises(StvideoError, match=message):
        read_classes(write(tmp_path / "labels.json", content))


def test_labels_must_be_found(something):
    (something / "labels.json").unlink()
    (something / "train.json").write_text(json.dumps([entry(9)]))
    with pytest.raises(StvideoError, match=r"data\.classes"):
        read_annotations(something / "train.json", something)


def test_a_missing_source_is_named(tmp_path):
    with pytest.raises(StvideoError, match=r"nowhere\.txt: no such list file"):
        read_annotations(tmp_path / "nowhere.txt", tmp_path)


def test_linked_folders_are_followed_but_never_in_circles(tmp_path):
    touch(tmp_path / "videos/a/1.mp4", tmp_path / "elsewhere/2.mp4")
    (tmp_path / "videos/b").mkdir()
    for link, target in {
        "videos/a/l": "../b",
        "videos/b/l": "../a",
        "videos/up": "..",
        "videos/o": "../elsewhere",
    }.items():
        (tmp_path / link).symlink_to(target)
    assert list(video_files(tmp_path / "videos")) == ["a/1.mp4", "b/l/1.mp4", "o/2.mp4"]
