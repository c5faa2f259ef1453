"""The motion clips: deterministic, resumable, laid out like Kinetics, and told apart by motion alone."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data_tools.motion import main
from stvideo.core.errors import StvideoError
from stvideo.data.loading.datasets import build_dataset
from stvideo.data.video.decode import probe
from stvideo.preparation.motion import MOTIONS, MotionSettings, draw_clip, write_motion
from stvideo.settings.schema import DataConfig

REPOSITORY = Path(__file__).parents[2]
TINY = {"size": 32, "frames": 6, "fps": 15}


def settings(classes=("left", "right"), train=2, test=1, **changes) -> MotionSettings:
    return MotionSettings(list(classes), train, test, **{"workers": 1, **TINY, **changes})


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.*"))}


def test_layout_is_that_of_kinetics_in_class_folders(tmp_path):
    assert write_motion(tmp_path, settings()) == 6
    assert (tmp_path / "classes.txt").read_text().split() == ["left", "right"]
    assert (tmp_path / "train.txt").read_text().splitlines() == [
        "train/left/000000.mp4 0", "train/left/000001.mp4 0", "train/right/000000.mp4 1", "train/right/000001.mp4 1",
    ]  # fmt: skip
    info = probe(tmp_path / "val/right/000000.mp4")
    assert (info.codec, info.num_frames, info.fps, info.width, info.height) == ("h264", 6, 15, 32, 32)
    config = DataConfig(root=str(tmp_path), num_frames=2, stride=3, target_fps=15, img_size=24, short_side=[24, 28])
    assert build_dataset(config, "train").classes == ["left", "right"]
    assert build_dataset(config, "val")[1]["video"].shape == (3, 2, 24, 24)


def test_the_same_seed_writes_the_same_bytes_whatever_the_number_of_processes(tmp_path):
    write_motion(tmp_path / "a", settings(workers=1))
    write_motion(tmp_path / "b", settings(workers=2))
    write_motion(tmp_path / "c", settings(seed=1))
    first, second, other = (contents(tmp_path / name) for name in "abc")
    assert first == second
    videos = [name for name in first if name.endswith(".mp4")]
    assert not any(first[name] == other[name] for name in videos)
    assert len({first[name] for name in videos}) == len(videos)  # training and validation clips differ too


def test_a_second_run_writes_only_what_is_missing(tmp_path):
    write_motion(tmp_path, settings())
    before = contents(tmp_path)
    (tmp_path / "train/left/000001.mp4").unlink()
    assert write_motion(tmp_path, settings()) == 1
    assert contents(tmp_path) == before
    # more clips and classes may join, and what is there stays as it is
    assert write_motion(tmp_path, settings(["left", "right", "up"], train=3)) == 2 + 4
    after = contents(tmp_path)
    assert all(after[name] == before[name] for name in before if name.endswith(".mp4"))


def test_a_folder_of_other_clips_is_refused(tmp_path):
    write_motion(tmp_path, settings())
    with pytest.raises(StvideoError, match="seed=0, not 1"):
        write_motion(tmp_path, settings(seed=1))
    before = contents(tmp_path)
    assert write_motion(tmp_path, settings(seed=1, overwrite=True)) == 6
    after = contents(tmp_path)
    assert not any(before[name] == after[name] for name in before if name.endswith(".mp4"))


def test_somebody_elses_folder_is_left_alone_unless_told_otherwise(tmp_path, monkeypatch):
    (tmp_path / "train.txt").write_text("mine\n")
    (tmp_path / "train/left").mkdir(parents=True)
    (tmp_path / "train/left/000000.mp4").write_text("mine too\n")
    before = contents(tmp_path)
    with pytest.raises(StvideoError, match="holds files that are not of this tool") as raised:
        write_motion(tmp_path, settings())
    assert "\n" not in str(raised.value)
    monkeypatch.chdir(tmp_path)
    for argv in ([""], [], ["a", "b"], ["a", "data.root=b"]):
        with pytest.raises(StvideoError, match="one folder to write to is expected"):
            main(argv)
    assert contents(tmp_path) == before
    assert write_motion(tmp_path, settings(overwrite=True)) == 6
    assert probe(tmp_path / "train/left/000000.mp4").num_frames == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 31}, "even"),
        ({"frames": 1}, "frames=1"),
        ({"train": 0}, "train_per_class=0"),
        ({"seed": -1}, "seed=-1"),
        ({"classes": ["left", "lefd"]}, "did you mean 'left'"),
        ({"classes": ["left", "left"]}, "each once"),
        ({"classes": []}, "expected some of"),
    ],
)
def test_impossible_settings_are_refused(tmp_path, changes, message):
    with pytest.raises(StvideoError, match=message):
        write_motion(tmp_path, settings(**changes))


def test_an_output_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StvideoError, match="cannot be written"):
        write_motion(tmp_path / "file" / "below", settings())


@pytest.mark.parametrize(("motion", "axis", "sign"), [("left", 1, -1), ("right", 1, 1), ("up", 0, -1), ("down", 0, 1)])
def test_objects_move_where_their_label_says(motion, axis, sign):
    agree = 0
    for seed in range(20):
        clip = draw_clip(motion, 64, 12, np.random.default_rng(seed)).astype(float)
        background = np.median(clip, axis=0)
        grid = np.arange(64)
        centers = []
        for frame in (clip[0], clip[-1]):
            weight = np.clip(np.abs(frame - background).sum(-1) - 60, 0, None).sum(1 - axis)
            centers.append((weight * grid).sum() / weight.sum())
        agree += (centers[1] - centers[0]) * sign > 3
    assert agree >= 18


def test_played_backwards_a_clip_is_one_of_the_opposite_motion():
    opposites = {"left": "right", "up": "down", "toward": "away", "clockwise": "counter-clockwise"}
    for one, other in opposites.items():
        for seed in range(3):
            forwards = draw_clip(one, 48, 7, np.random.default_rng(seed)).astype(int)
            backwards = draw_clip(other, 48, 7, np.random.default_rng(seed)).astype(int)[::-1]
            # the same draws but for light and noise, which go with the frames
            assert np.abs(forwards - backwards).mean() < 12
            assert np.abs(forwards[0] - backwards[-1]).mean() > np.abs(forwards[0] - backwards[0]).mean()


def test_single_frames_look_alike_in_all_classes():
    """Places and colours of random single frames: no class stands out by more than chance allows."""
    means = []
    for motion in MOTIONS:
        pictures = []
        for seed in range(60):
            generator = np.random.default_rng((seed, 5))
            pictures.append(draw_clip(motion, 16, 8, generator)[generator.integers(8)])
        means.append(np.stack(pictures).mean(0))
    means = np.stack(means).astype(float)
    assert np.abs(means - means.mean(0)).mean() < 12


def test_the_command_teaches_and_fails_in_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "left, right, up, down" in text
    assert "classes.txt" in text
    command = [sys.executable, "data_tools/motion.py", str(tmp_path / "m"), "size=31"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=500)
    assert done.returncode == 2
    assert done.stderr.strip() == "stvideo: error: size=31: H.264 needs an even number of pixels"
