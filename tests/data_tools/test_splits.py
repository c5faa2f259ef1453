"""UCF101, HMDB51 and class folders: official split files and folders to lists that training reads."""

import json
from pathlib import Path

import pytest

from data_tools.splits import main
from stvideo.core.errors import StvideoError
from stvideo.data.lists.annotations import read_annotations
from stvideo.data.lists.listfiles import read_classes
from tests.data_tools.trees import touch, write

SHARED = Path(__file__).parents[3] / "shared" / "annotations"


def run(tmp_path, *arguments):
    """The tool on the folder ``videos``; the lists it wrote, as (path, class name) pairs by list."""
    lists = tmp_path / "lists"
    main([*map(str, arguments), f"root={tmp_path / 'videos'}", f"output={lists}"])
    found = {}
    for path in lists.glob("*.txt"):
        if path.stem != "classes":
            index = read_annotations(path, tmp_path / "videos")
            found[path.stem] = [(index.path(i), index.classes[index.labels[i]]) for i in range(len(index))]
    return found


@pytest.fixture
def ucf(tmp_path):
    write(tmp_path / "ucf/classInd.txt", "1 ApplyEyeMakeup\r\n2 HandstandPushups\r\n3 HandstandWalking\r\n")
    for split in (1, 2):
        group = f"g0{split}_c01.avi"
        write(
            tmp_path / f"ucf/trainlist0{split}.txt",
            f"HandstandWalking/v_HandstandWalking_{group} 3\r\nApplyEyeMakeup/v_ApplyEyeMakeup_{group} 1\r\n",
        )
        write(tmp_path / f"ucf/testlist0{split}.txt", f"HandstandPushups/v_HandStandPushups_{group}\r\n")
    return tmp_path / "ucf"


@pytest.mark.parametrize("ending", ["avi", "mp4"])
def test_ucf101(tmp_path, ucf, ending):
    actions = {action: action for action in ("ApplyEyeMakeup", "HandstandPushups", "HandstandWalking")}
    actions["HandstandPushups"] = "HandStandPushups"  # so the data set spells its files
    names = [f"{folder}/v_{name}_g0{split}_c01.{ending}" for split in (1, 2) for folder, name in actions.items()]
    touch(tmp_path / "videos", *names[:-1])
    found = run(tmp_path, ucf)
    assert found["train_split1"] == [(names[2], "HandstandWalking"), (names[0], "ApplyEyeMakeup")]
    assert found["val_split1"] == [(names[1], "HandstandPushups")]
    assert found["train_split2"] == [(names[3], "ApplyEyeMakeup")]
    assert read_classes(tmp_path / "lists/classes.txt") == ["ApplyEyeMakeup", "HandstandPushups", "HandstandWalking"]


def test_ucf101_in_its_own_class_order(tmp_path):
    if not SHARED.is_dir():
        pytest.skip("the published class lists are not here")
    names = (SHARED / "ucf101.txt").read_text().split()
    write(tmp_path / "ucf/classInd.txt", "".join(f"{number} {name}\n" for number, name in enumerate(names, 1)))
    write(tmp_path / "ucf/trainlist01.txt", "".join(f"{n}/v_{n}_g01.avi {i}\n" for i, n in enumerate(names, 1)))
    touch(tmp_path / "videos", "v_YoYo_g01.avi")
    assert run(tmp_path, tmp_path / "ucf") == {"train_split1": [("v_YoYo_g01.avi", "YoYo")]}
    assert read_classes(tmp_path / "lists/classes.txt") == names


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("classInd.txt", "1 A\n3 B\n", r"classInd\.txt:2: expected '2 ClassName'"),
        ("trainlist01.txt", "ApplyEyeMakeup/x.avi 2\n", r"trainlist01\.txt:1: .* class 2, but ApplyEyeMakeup is 1"),
        ("trainlist01.txt", "ApplyEyeMake/x.avi 1\n", r"trainlist01\.txt:1: .*did you mean 'ApplyEyeMakeup'"),
        ("trainlist01.txt", "x.avi 1\n", r"trainlist01\.txt:1: expected Class/video\.avi"),
    ],
)
def test_bad_ucf101_files_are_named_by_line(tmp_path, ucf, name, text, message):
    touch(tmp_path / "videos", "x.avi")
    write(ucf / name, text)
    with pytest.raises(StvideoError, match=message):
        run(tmp_path, ucf)


def test_hmdb51(tmp_path):
    """Its file names hold signs that mean something in list files."""
    odd = "#437_How_To_Ride_A_Bike_ride_bike_f_cm_np1_le_med_0.avi"
    write(
        tmp_path / "hmdb/ride_bike_test_split1.txt", f"{odd} 1 \nb&c!(x)_ride_bike_1.avi 2 \nunused_ride_bike.avi 0 \n"
    )
    write(tmp_path / "hmdb/brush_hair_test_split1.txt", "[April]_brush_hair_u_0.avi 1 \n'x'_brush_hair_0.avi 2 \n")
    touch(
        tmp_path / "videos", f"ride_bike/{odd}", "ride_bike/b&c!(x)_ride_bike_1.avi", "ride_bike/unused_ride_bike.avi"
    )
    touch(tmp_path / "videos", "brush_hair/[April]_brush_hair_u_0.avi", "'x'_brush_hair_0.avi")
    found = run(tmp_path, tmp_path / "hmdb")
    assert set(found["train_split1"]) == {
        (f"ride_bike/{odd}", "ride_bike"), ("brush_hair/[April]_brush_hair_u_0.avi", "brush_hair"),
    }  # fmt: skip
    assert set(found["val_split1"]) == {
        ("'x'_brush_hair_0.avi", "brush_hair"), ("ride_bike/b&c!(x)_ride_bike_1.avi", "ride_bike"),
    }  # fmt: skip
    write(tmp_path / "hmdb/ride_bike_test_split1.txt", "a.avi 3\n")
    with pytest.raises(StvideoError, match=r"ride_bike_test_split1\.txt:1: expected 'video\.avi 1'"):
        run(tmp_path, tmp_path / "hmdb")


def test_videos_that_lie_flat_under_odd_names(tmp_path):
    write(tmp_path / "hmdb/run_test_split1.txt", '#1.avi 1\n"q".avi 1\n a.avi 2\n')
    touch(tmp_path / "videos", "#1.avi", '"q".avi', "a.avi")
    found = run(tmp_path, tmp_path / "hmdb")
    assert found == {"train_split1": [("#1.avi", "run"), ('"q".avi', "run")], "val_split1": [("a.avi", "run")]}


def test_class_folders_below_split_folders(tmp_path):
    touch(tmp_path / "videos", "train/arm wrestling/1.mp4", "train/zumba/1.mp4", "validation/zumba/deep/2.webm")
    touch(tmp_path / "videos", "train/zumba/._1.mp4", "train/zumba/2.mp4.part")
    touch(tmp_path / "videos", "train/zumba/0.mp4", content=b"")
    assert run(tmp_path) == {
        "train": [("train/arm wrestling/1.mp4", "arm wrestling"), ("train/zumba/1.mp4", "zumba")],
        "val": [("validation/zumba/deep/2.webm", "zumba")],
    }
    report = json.loads((tmp_path / "lists/train.report.json").read_text())
    assert report["second_copies"] == 0  # 1.mp4 of another class is another video
    assert report["extra_files"]["count"] == 0


def test_class_folders_are_divided_the_same_way_again(tmp_path):
    names = [f"{action}/{number}.mp4" for action in ("a", "b") for number in range(100)]
    touch(tmp_path / "videos", *names)
    first = run(tmp_path, "val_share=0.2")
    assert sorted(path for side in first.values() for path, _ in side) == sorted(names)
    assert 20 <= len(first["val"]) <= 60
    touch(tmp_path / "videos", "c/new.mp4", "a/new.mp4")
    second = run(tmp_path, "val_share=0.2", "overwrite=true")
    assert all(set(first[side]) <= set(second[side]) for side in first)
    assert set(run(tmp_path, "val_share=0", "overwrite=true")) >= {"train"}


def test_split_folders_are_not_divided_as_if_they_were_classes(tmp_path):
    touch(tmp_path / "videos", "train/zumba/1.mp4", "validation/zumba/2.mp4")
    with pytest.raises(StvideoError, match="divided into train, validation already; leave out val_share"):
        run(tmp_path, "val_share=0.5")


def test_folders_that_do_not_fit_are_named(tmp_path):
    touch(tmp_path / "videos", "a/1.mp4")
    with pytest.raises(StvideoError, match=r"a/1\.mp4: lies in no train or val folder; val_share"):
        run(tmp_path)
    with pytest.raises(StvideoError, match="val_share=2"):
        run(tmp_path, "val_share=2")
    with pytest.raises(StvideoError, match="neither UCF101's files"):
        run(tmp_path, tmp_path / "videos")
    touch(tmp_path / "videos", "train/1.mp4")
    (tmp_path / "videos/a/1.mp4").unlink()
    with pytest.raises(StvideoError, match=r"train/1\.mp4: lies in no folder of a class"):
        run(tmp_path)
