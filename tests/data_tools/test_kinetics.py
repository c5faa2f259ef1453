"""From official Kinetics CSVs and the files that are there to lists that training reads."""

import hashlib
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from data_tools.kinetics import main
from stvideo.core.errors import StvideoError
from stvideo.data.lists.annotations import read_annotations
from stvideo.data.lists.listfiles import read_classes
from stvideo.data.lists.split_report import official_size
from stvideo.data.loading.datasets import build_dataset
from stvideo.settings.schema import DataConfig
from tests.data_tools.trees import touch, write
from tests.video_files import encode_video, frame_numbers, numbered_frames

REPOSITORY = Path(__file__).parents[2]
ANNOTATIONS = REPOSITORY.parent / "shared" / "annotations"
HEADING = "label,youtube_id,time_start,time_end,split,is_cc\n"
A, B, C, D = "--aaaaaaaaa", "bbbbbbbbbbb", "_cccccccccc", "dDdDdDdDdDd"
TRAIN = HEADING + f'"arm wrestling",{A},5,15,train,0\narchery,{B},0,10,train,0\nzumba,{C},12,22,train,1\n'
VAL = HEADING + f"zumba,{D},100,110,validate,0\n"


def run(tmp_path, *arguments):
    """The tool on the folder ``ann``; the lists it wrote, as (path, class name) pairs by split."""
    output = tmp_path / "lists"
    main([*map(str, arguments or [tmp_path / "ann"]), f"root={tmp_path / 'k'}", f"output={output}"])
    found = {}
    for path in sorted(output.glob("*.txt")):
        if path.name in ("train.txt", "val.txt", "test.txt"):
            index = read_annotations(path, tmp_path / "k")
            found[path.stem] = [(index.path(i), index.classes[index.labels[i]]) for i in range(len(index))]
    return found


def report(tmp_path, split):
    return json.loads((tmp_path / "lists" / f"{split}.report.json").read_text())


@pytest.fixture
def ann(tmp_path):
    write(tmp_path / "ann/train.csv", TRAIN)
    write(tmp_path / "ann/validate.csv", VAL)
    return tmp_path / "ann"


@pytest.mark.parametrize(
    "files",
    [
        # CVDF: all clips of a split in one folder
        [f"train/{A}_000005_000015.mp4", f"train/{B}_000000_000010.mp4", f"train/{C}_000012_000022.mp4",
         f"val/{D}_000100_000110.mp4"],
        # class folders, with spaces and underscores, in other formats
        [f"train/arm wrestling/{A}_000005_000015.mkv", f"train/archery/{B}_000000_000010.WEBM",
         f"train/zumba/{C}_000012_000022.avi", f"val/zumba/{D}_000100_000110.mp4"],
        [f"arm_wrestling/{A}.mp4", f"archery/{B}.mp4", f"zumba/{C}.webm", f"zumba/{D}.mp4"],
        # OpenDataLab
        [f"Kinetics-400/videos_train/{A}_000005_000015.mp4", f"Kinetics-400/videos_train/{B}_000000_000010.mp4",
         f"Kinetics-400/videos_train/{C}_000012_000022.mp4", f"Kinetics-400/videos_val/{D}_000100_000110.mp4"],
        # bare identifiers, and times without leading zeros
        [f"{A}.mp4", f"{B}.mkv", f"{C}_12_22.mp4", f"x/{D}_100_110.mp4"],
    ],
)  # fmt: skip
def test_every_layout_is_found(tmp_path, ann, files):
    touch(tmp_path / "k", *files)
    assert run(tmp_path) == {
        "train": list(zip(files[:3], ["arm wrestling", "archery", "zumba"], strict=True)),
        "val": [(files[3], "zumba")],
    }
    assert read_classes(tmp_path / "lists/classes.txt") == ["archery", "arm wrestling", "zumba"]
    assert report(tmp_path, "train")["share"] == 1.0


@pytest.mark.parametrize(
    "text",
    [
        f"label,youtube_id,time_start,time_end,split\nzumba,{C},12,22,train\n",
        f"\ufefflabel,youtube_id,time_start,time_end\r\nzumba,{C},12.0,22.0\r\n",
        f"YouTube ID,Time Start,Time End,Label,Subset\n{C},12,22,zumba,training\n",
        f"#youtube_id,start_time,end_time,class_label\n{C},12,22,zumba\n",
        f"zumba,{C},12,22,train,0\n",
        f"{HEADING}\n   \n,,,,,\nzumba,{C},12,22,train,0\n",
    ],
)
def test_headings_of_every_release(tmp_path, text):
    write(tmp_path / "train.csv", text)
    touch(tmp_path / "k", f"{C}_000012_000022.mp4")
    assert run(tmp_path, tmp_path / "train.csv") == {"train": [(f"{C}_000012_000022.mp4", "zumba")]}


def video(start, end, subset, **label):
    """An entry of the official JSON files."""
    about = {"annotations": {**label, "segment": [start, end]}, "duration": end - start, "subset": subset}
    return {**about, "url": "https://www.youtube.com/watch?v=x"}


JSON_TRAIN = {
    A: video(5.0, 15.0, "train", label="arm wrestling"),
    B: video(0.0, 10.0, "train", label="archery"),
    C: video(12.0, 22.0, "train", label="zumba"),
}


def test_json_says_what_csv_says(tmp_path, ann):
    """Lists, and what training reads without lists, are the same; a JSON file beside its CSV is left alone."""
    names = [f"train/{A}_000005_000015.mp4", f"train/{B}_000000_000010.mp4", f"val/{D}_000100_000110.mp4", f"{C}.mp4"]
    touch(tmp_path / "k", *names, f"{'e' * 11}.mp4")
    found = run(tmp_path)
    write(ann / "train.json", json.dumps(JSON_TRAIN))
    assert run(tmp_path) == found
    of_csv = read_annotations(ann / "train.csv", tmp_path / "k", split="train")
    for name in ("train.csv", "validate.csv"):
        (ann / name).unlink()
    write(ann / "validate.json", json.dumps({D: video(100.0, 110.0, "validate", label="zumba")}, indent=2))
    write(ann / "test.json", json.dumps({"e" * 11: video(3, 13, "test")}))
    assert run(tmp_path) == found
    assert (tmp_path / "lists/test.unlabeled.txt").read_text() == f"{'e' * 11}.mp4\n"
    of_json = read_annotations(ann / "train.json", tmp_path / "k", split="train")
    assert list(of_json.paths()) == list(of_csv.paths())
    assert (of_json.classes, of_json.labels.tolist()) == (of_csv.classes, of_csv.labels.tolist())
    config = DataConfig(root=str(tmp_path / "k"), train=str(ann / "train.json"), val=str(ann / "validate.json"))
    dataset = build_dataset(config, "val")
    assert (dataset.classes, dataset.video_index.labels.tolist()) == (["archery", "arm wrestling", "zumba"], [2])
    with pytest.raises(StvideoError, match=r"test\.json: entry 0: no label"):
        read_annotations(ann / "test.json", tmp_path / "k")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"annotations": [{"label": "zumba", "segment": [1, 2]}]}, rf"entry 1 \({B}\): expected 'annotations' with"),
        ({"annotations": {"label": "zumba"}}, "entry 1 .*: expected 'annotations' with"),
        ({"annotations": {"label": "zumba", "segment": [1]}}, "entry 1 .*: expected 'annotations' with"),
        ({"annotations": {"label": "zumba", "segment": [None, 2]}}, "entry 1: time_start and time_end are seconds"),
        ("zumba", "entry 1 .*: expected 'annotations' with"),
        (video(15, 5, "train", label="zumba"), "entry 1: a video cannot be cut from 15 s to 5 s"),
        (video(5, 15, "train", label="zumbo"), r"entry 1: label 'zumbo' is not .*did you mean 'zumba'"),
    ],
)
def test_bad_json_is_named_by_entry(tmp_path, entry, message):
    write(tmp_path / "train.json", json.dumps({A: JSON_TRAIN[A], B: entry}))
    write(tmp_path / "classes.txt", "archery\narm wrestling\nzumba\n")
    touch(tmp_path / "k", f"{A}.mp4")
    with pytest.raises(StvideoError, match=message):
        run(tmp_path, tmp_path / "train.json", f"classes={tmp_path / 'classes.txt'}")


def test_what_is_missing_or_odd_is_reported(tmp_path, ann, capsys):
    touch(tmp_path / "k", f"train/{A}_000005_000015.mp4", f"val/._{D}_000100_000110.mp4", "other.mp4", ".hidden/x.mp4")
    touch(tmp_path / "k", f"{B}_000000_000010.mp4.part", f"{B}.temp.mp4", f"{C}_000012_000022.mp4.ytdl")
    touch(tmp_path / "k", f"replacement/{A}_000005_000015.mp4", f"{D}.webm")
    touch(tmp_path / "k", f"{C}_000012_000022.mp4", content=b"")
    (tmp_path / "k" / f"{B}_000000_000010.mp4").mkdir()
    write(ann / "train.csv", TRAIN + f"archery,{B},0,10,train,0\n")
    found = run(tmp_path)
    assert found["train"] == [(f"replacement/{A}_000005_000015.mp4", "arm wrestling")]
    train = report(tmp_path, "train")
    assert (train["official"], train["found"], train["missing"], train["share"]) == (3, 1, 2, 0.333333)
    assert train["missing_per_class"] == {"archery": 1, "zumba": 1}
    assert (train["repeated"], train["second_copies"]) == (1, 1)
    assert train["extra_files"] == {"count": 1, "examples": ["other.mp4"]}
    assert train["passed_over"] == {
        "hidden file": 1, "partial download": 3, "empty file": 1, "folder called like a video": 1,
    }  # fmt: skip
    assert train["sha256"] == hashlib.sha256((tmp_path / "lists/train.txt").read_bytes()).hexdigest()
    assert official_size(tmp_path / "lists/train.txt") == 3
    told = capsys.readouterr()
    assert "train: 1 of 3 videos (33.3%)" in told.out
    assert train["sha256"] in told.out
    assert "2 classes have no video left: 'archery', 'zumba'" in told.err
    assert f"repeat others, counted once: 1, e.g. {B}_000000_000010 (lines 3 and 5)" in told.err


def test_a_split_without_labels_is_listed_by_path(tmp_path, ann):
    write(ann / "test.csv", f"youtube_id,time_start,time_end,split\n{B},0,10,test\nmissing_one,0,10,test\n")
    touch(tmp_path / "k", f"test/{B}_000000_000010.mp4", f"{A}.mp4", f"{D}.mp4")
    run(tmp_path)
    assert (tmp_path / "lists/test.unlabeled.txt").read_text() == f"test/{B}_000000_000010.mp4\n"
    assert report(tmp_path, "test.unlabeled")["official"] == 2


def test_contradictions_are_left_out_and_named(tmp_path, capsys):
    rows = f"zumba,{A},5,15,train,0\narchery,{A},5,15,train,0\nzumba,{B},0,10,train,0\narchery,{B},20,30,train,0\n"
    write(tmp_path / "ann/train.csv", HEADING + rows + f"zumba,{C},1,11,train,0\n")
    write(tmp_path / "ann/val.csv", HEADING + f"zumba,{C},1,11,val,0\n")
    touch(tmp_path / "k", f"{A}_000005_000015.mp4", f"{B}.mp4", f"{C}.mp4")
    assert run(tmp_path)["train"] == [(f"{C}.mp4", "zumba")]
    told = capsys.readouterr().err
    assert (
        f"annotated with two classes, left out: 1, e.g. {A}_000005_000015 ('zumba' in line 2, 'archery' in 3)" in told
    )
    assert f"serve several clips, left out: 1, e.g. {B}.mp4" in told
    assert f"videos in both train and val: 1, e.g. {C}_000001_000011" in told


def test_untrimmed_downloads_are_cut_by_the_list(tmp_path, capsys):
    """A bare identifier names the whole video; its clips are read from their seconds, in training and in testing."""
    (tmp_path / "k").mkdir()
    encode_video(tmp_path / "k" / f"{A}.mp4", numbered_frames(150, 96, 96), fps=10, b_frames=2)
    rows = f"zumba,{A},1,4,train,0\narchery,{A},8,12,train,0\n"
    write(tmp_path / "ann/train.csv", HEADING + rows)
    write(tmp_path / "ann/val.csv", HEADING + rows.replace("train", "val"))
    with pytest.raises(StvideoError, match="none of the 4 annotated videos"):
        run(tmp_path)  # one file for two clips: not without being told how
    output = [f"root={tmp_path / 'k'}", f"output={tmp_path / 'lists'}"]
    main([str(tmp_path / "ann"), *output, "untrimmed=true"])
    assert (tmp_path / "lists/train.txt").read_text() == f"{A}.mp4\t1\t1\t4\n{A}.mp4\t0\t8\t12\n"
    config = DataConfig(
        root=str(tmp_path / "k"), train=str(tmp_path / "lists/train.txt"), val=str(tmp_path / "lists/val.txt"),
        num_frames=4, stride=6, target_fps=10, img_size=96, short_side=[96, 96], flip=False,
    )  # fmt: skip
    for dataset in (build_dataset(config, "train"), build_dataset(config, "val", "3x1")):
        for number in range(len(dataset)):
            sample = dataset[number]
            start, end = ((10, 40), (80, 120))[sample["index"]]
            assert all(start <= frame < end for frame in frame_numbers(sample["video"].permute(1, 2, 3, 0)))
    write(tmp_path / "ann/train.csv", HEADING + f"zumba,{A},1,4,train,0\n")
    main([str(tmp_path / "ann/train.csv"), output[0], f"output={tmp_path / 'other'}"])
    assert f"seem to be whole videos ({A}.mp4 lasts 15 s, its clip 3 s): list their clips with untrimmed=true" in (
        capsys.readouterr().err
    )


def test_running_again_changes_nothing_and_other_lists_are_kept(tmp_path, ann):
    touch(tmp_path / "k", f"{A}.mp4", f"{D}.mp4")
    first = run(tmp_path)
    assert run(tmp_path) == first
    touch(tmp_path / "k", f"{B}.mp4")
    with pytest.raises(StvideoError, match=r"train\.txt: already there.*overwrite=true"):
        run(tmp_path)
    assert len(run(tmp_path, ann, "overwrite=true")["train"]) == 2
    (tmp_path / "lists/val.report.json").write_text('{"somebody": "else"}')
    with pytest.raises(StvideoError, match=r"val\.report\.json"):
        run(tmp_path)
    assert not list((tmp_path / "lists").glob(".*"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADING, r"train\.csv: no videos in it"),
        (TRAIN + "zumba,xxxxxxxxxxx,3\n", r"train\.csv:5: 6 columns"),
        (TRAIN + "zumba,xxxxxxxxxxx,a,3,train,0\n", r"train\.csv:5: time_start and time_end are seconds"),
        (TRAIN + "zumba,xxxxxxxxxxx,9,3,train,0\n", r"train\.csv:5: .*cut from 9 s to 3 s"),
        (TRAIN + "zumba,,9,13,train,0\n", r"train\.csv:5: the youtube_id is empty"),
        (TRAIN + "zumbaa,xxxxxxxxxxx,3,13,train,0\n", r"train\.csv:5: label 'zumbaa'.*did you mean 'zumba'"),
        ("label,start,end\nzumba,1,2\n", r"train\.csv:1: no column 'youtube_id' in it; it has label, start, end"),
    ],
)
def test_bad_annotations_are_named_by_line(tmp_path, text, message):
    write(tmp_path / "train.csv", text)
    write(tmp_path / "classes.txt", "archery\narm wrestling\nzumba\n")
    touch(tmp_path / "k", f"{A}.mp4")
    with pytest.raises(StvideoError, match=message):
        run(tmp_path, tmp_path / "train.csv", f"classes={tmp_path / 'classes.txt'}")
    assert not (tmp_path / "lists").exists()


def test_class_names_that_no_line_holds_are_refused(tmp_path):
    write(tmp_path / "train.csv", f'{HEADING}"two\nlines",{A},5,15,train,0\nzumba,{B},5,15,train,0\n')
    touch(tmp_path / "k", f"{A}.mp4")
    with pytest.raises(StvideoError, match=r"class name 'two\\nlines'"):
        run(tmp_path, tmp_path / "train.csv")
    assert not (tmp_path / "lists").exists()


def test_wrong_folders_are_named(tmp_path, ann):
    with pytest.raises(StvideoError, match="no such folder"):
        run(tmp_path)
    touch(tmp_path / "k", "part_0.tar.gz", "part_1.tar.gz")
    with pytest.raises(StvideoError, match=r"no videos in it; it holds 2 archives, e\.g\. part_0\.tar\.gz: unpack"):
        run(tmp_path)
    touch(tmp_path / "k", "other.mp4")
    with pytest.raises(StvideoError, match=r"none of the 4 annotated videos is among its 1 video files \(e\.g\. other"):
        run(tmp_path)
    with pytest.raises(StvideoError, match="no Kinetics CSV"):
        run(tmp_path, tmp_path / "k")
    write(tmp_path / "ann/k600_train.csv", TRAIN)
    with pytest.raises(StvideoError, match=r"split .train. is in .* too"):
        run(tmp_path)


def test_the_command_runs_from_anywhere(tmp_path, ann):
    touch(tmp_path / "k", f"{A}.mp4", f"{D}.mp4")
    command = [sys.executable, REPOSITORY / "data_tools/kinetics.py", "ann", "root=k"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "use: data.root=k data.train=k/train.txt data.val=k/val.txt data.classes=k/classes.txt" in done.stdout
    (tmp_path / "k/train.txt").write_text("mine\n")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1


def test_class_order_is_that_of_published_checkpoints(tmp_path):
    if not ANNOTATIONS.is_dir():
        pytest.skip("the published class lists are not here")
    names = (ANNOTATIONS / "kinetics400.txt").read_text().splitlines()
    rows = [f'"{name}",{number:011d},0,10,train,0\n' for number, name in enumerate(names)]
    random.Random(0).shuffle(rows)
    write(tmp_path / "ann/train.csv", HEADING + "".join(rows))
    touch(tmp_path / "k", f"{7:011d}.mp4")
    run(tmp_path)
    assert read_classes(tmp_path / "lists/classes.txt") == names
