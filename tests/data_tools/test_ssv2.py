"""From the official Something-Something files and the webm files that are there to lists that training reads."""

import json
from pathlib import Path

import pytest

from data_tools.ssv2 import main
from stvideo.core.errors import StvideoError
from stvideo.data.lists.annotations import read_annotations
from stvideo.data.lists.listfiles import read_classes
from stvideo.data.loading.datasets import build_dataset
from stvideo.settings.schema import DataConfig
from tests.data_tools.trees import touch, write
from tests.video_files import encode_video, numbered_frames

LABELS = {"Holding something": "1", "Bending something so that it deforms": "0", "Laying something, not upright": "2"}
FOLDER = "20bn-something-something-v2"
SHARED_LABELS = Path(__file__).parents[3] / "shared" / "annotations" / "sthv2.txt"


def entry(number, template):
    return {"id": str(number), "label": "holding a cup", "template": template, "placeholders": ["a cup"]}


@pytest.fixture(params=["", "something-something-v2-"])
def ann(tmp_path, request):
    folder = tmp_path / "labels"
    for name, content in {
        "labels": LABELS,
        "train": [
            entry(74225, "Holding [something]"),
            entry(9, "Laying [something], not upright"),
            entry(10, "Holding [something]"),
        ],
        "validation": [entry(11, "Bending [something] so that [it] deforms")],
        "test": [{"id": "12"}, {"id": "13"}],
    }.items():
        write(folder / f"{request.param}{name}.json", json.dumps(content))
    return folder


def run(tmp_path, ann, *more):
    main([str(ann), f"root={tmp_path / 'ssv2'}", f"output={tmp_path / 'lists'}", *more])
    return {path.stem: path.read_text() for path in (tmp_path / "lists").glob("*.txt")}


def test_lists_of_official_files(tmp_path, ann, capsys):
    touch(tmp_path / "ssv2" / FOLDER, *(f"{number}.webm" for number in (74225, 9, 11, 12, 99)))
    found = run(tmp_path, ann)
    assert found["train"] == f"{FOLDER}/74225.webm\t1\n{FOLDER}/9.webm\t2\n"
    assert found["val"] == f"{FOLDER}/11.webm\t0\n"
    assert found["test.unlabeled"] == f"{FOLDER}/12.webm\n"
    assert read_classes(tmp_path / "lists/classes.txt") == sorted(LABELS, key=lambda name: int(LABELS[name]))
    report = json.loads((tmp_path / "lists/train.report.json").read_text())
    assert (report["official"], report["found"], report["missing_per_class"]) == (3, 2, {"Holding something": 1})
    assert report["extra_files"]["examples"] == [f"{FOLDER}/99.webm"]
    assert "train: 2 of 3 videos (66.7%)" in capsys.readouterr().out


def test_lists_and_json_files_give_the_same_videos(tmp_path, ann):
    touch(tmp_path / "ssv2" / FOLDER, *(f"{number}.webm" for number in (74225, 9, 11)))
    run(tmp_path, ann)
    direct = read_annotations(next(ann.glob("*train.json")), tmp_path / "ssv2")
    listed = read_annotations(tmp_path / "lists/train.txt", tmp_path / "ssv2")
    assert (direct.paths(), direct.labels.tolist()) == (listed.paths(), listed.labels.tolist())
    assert (direct.classes, direct.official) == (listed.classes, listed.official) == (listed.classes, 3)


@pytest.mark.parametrize("line", ["12;Holding something", '"12","Holding [something]"', "12\tHolding something"])
def test_answers_label_the_test_split(tmp_path, ann, line):
    write(ann / "test-answers.csv", f"{line}\n13;Laying something, not upright\n")
    touch(tmp_path / "ssv2", "12.webm", "13.webm")
    assert run(tmp_path, ann)["test"] == "12.webm\t1\n13.webm\t2\n"


def test_webm_files_are_read_where_they_are(tmp_path, ann):
    for number in (74225, 9, 11):
        path = tmp_path / "ssv2" / FOLDER / f"{number}.webm"
        path.parent.mkdir(parents=True, exist_ok=True)
        encode_video(path, numbered_frames(12, 32, 48), codec="libvpx-vp9", fps=12, options={"cpu-used": "8"})
    run(tmp_path, ann)
    lists = tmp_path / "lists"
    config = DataConfig(
        root=str(tmp_path / "ssv2"), train=str(lists / "train.txt"), val=str(lists / "val.txt"),
        classes=str(lists / "classes.txt"), sampling="segment", num_frames=4, img_size=32, short_side=[32, 32],
    )  # fmt: skip
    train, val = build_dataset(config, "train"), build_dataset(config, "val")
    assert [train[number]["label"] for number in range(2)] == [1, 2]
    assert val[0]["video"].shape == (3, 4, 32, 32)
    assert (train.official, val.official) == (3, 1)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train", "[]", "JSON list"),
        ("train", "[1,\n}", r"train\.json:2: not valid JSON"),
        ("train", '[{"id": "9"}]', "entry 0: video 9 has no template"),
        ("train", json.dumps([entry(9, "Holdin [something]")]), "entry 0.*did you mean 'Holding something'"),
        ("labels", '{"a": "0", "b": "2"}', r"not 0 \.\. 1"),
    ],
)
def test_bad_annotations_are_named(tmp_path, ann, name, content, message):
    touch(tmp_path / "ssv2", "9.webm")
    write(next(ann.glob(f"*{name}.json")), content)
    with pytest.raises(StvideoError, match=message):
        run(tmp_path, ann)
    assert not (tmp_path / "lists").exists()


def test_missing_files_are_named(tmp_path, ann):
    touch(tmp_path / "ssv2", "9.webm")
    with pytest.raises(StvideoError, match=r"labels\.json, train\.json"):
        run(tmp_path, tmp_path / "nowhere")
    with pytest.raises(StvideoError, match=r"no labels\.json"):
        run(tmp_path, tmp_path / "ssv2")
    for path in (*ann.glob("*train.json"), *ann.glob("*validation.json"), *ann.glob("*test.json")):
        path.unlink()
    with pytest.raises(StvideoError, match=r"none of train\.json"):
        run(tmp_path, ann)
    write(ann / "train.json", json.dumps([entry(1, "Holding [something]")]))
    with pytest.raises(StvideoError, match="none of the 1 annotated videos"):
        run(tmp_path, ann)


def test_class_order_is_that_of_published_checkpoints(tmp_path):
    if not SHARED_LABELS.is_file():
        pytest.skip("the published class lists are not here")
    names = SHARED_LABELS.read_text().splitlines()
    write(
        tmp_path / "ann/labels.json",
        json.dumps({name: str(number) for number, name in reversed(list(enumerate(names)))}),
    )
    videos = [entry(number, name.replace("something", "[something]")) for number, name in enumerate(names)]
    write(tmp_path / "ann/train.json", json.dumps(videos))
    touch(tmp_path / "ssv2", "3.webm", "173.webm")
    assert run(tmp_path, tmp_path / "ann")["train"] == "3.webm\t3\n173.webm\t173\n"
    assert read_classes(tmp_path / "lists/classes.txt") == names
