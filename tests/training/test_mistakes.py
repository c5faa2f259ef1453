"""The training command given something wrong: one line for every mistake, and nothing lost."""

from pathlib import Path

import pytest
import torch

from tests.tiny_runs import (
    CLASSES,
    TINY,
    assert_one_line,
    make_data,
    read_log,
    run_command,
    run_here,
)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.root=/no/such/folder", r"data.root=/no/such/folder"),
        ("data.root=EMPTY", r"data.root=.*empty"),
        ("data.train=no_list.txt", r"no_list.txt: no such file"),
        ("data.train=MALFORMED", r"malformed.txt.*2"),
        ("data.train=OUTSIDE", r"outside.txt.*1.*99"),
        ("data.train=STRANGER", r"stranger.txt.*1.*juggling"),
        ("trian.lr=1", r"unknown key 'trian'.*did you mean 'train'"),
        ("train.lrr=1", r"unknown key 'train.lrr'.*did you mean 'train.lr'"),
        ("train.lr=fast", r"train.lr.*fast"),
        ("train.lr=-1", r"train.lr=-1.0: must be above 0"),
        ("train.optimizer=adam", r"train.optimizer=adam.*did you mean 'adamw'"),
        ("train.precision=fp16", r"fp16 needs a GPU"),
        ("train.trackers=[tensorbord]", r"unknown tracker 'tensorbord'.*did you mean 'tensorboard'"),
        ("evaluate.views=3", r"evaluate.views=3: expected CLIPSxCROPS"),
        ("evaluate.during_training=1x0", r"evaluate.during_training=1x0: clips and crops are at least 1"),
        ("model.name=timesformr", r"timesformr.*timesformer"),
        ("model.reduction=evitt", r"evitt.*evit"),
        ("model.reduction.evit.keep_rate=1.5", r"evit.*keep_rate.*1.5"),
        ("model.reduction.evit={layers: [7]}", r"evit.*layer.*7"),
        ("model.reduction.stgm={layers: [1, 2], grid: [null, 9, 9]}", r"stgm.*9"),
        ("model.args={embed_dim: 32, depht: 3}", r"depht.*did you mean 'depth'"),
        ("model.args={drop_path_rate: 0.1}", r"model.args.drop_path_rate.*model.drop_path_rate"),
        ("data.img_size=30", r"30.*16"),
        ("train.freeze=[patch_embd]", r"no part 'patch_embd' \(did you mean 'patch_embed'"),
        ("model.num_classes=7", r"num_classes.*7.*3 classes"),
        ("init=/no/weights.pth", r"init=/no/weights.pth: no such file"),
        ("init=NOTWEIGHTS", r"notweights.pth: not a PyTorch or safetensors file"),
        ("init=OTHER", r"other.safetensors"),
        ("train.teacher=/no/teacher", r"train.teacher=/no/teacher: no such file"),
        ("resume=/no/run", r"resume=/no/run: no such run"),
        ("output=BLOCKED", r"output=.*cannot write there"),
        ("data.batch_size=64", r"batch_size"),
    ],
)
def test_bad_input_is_one_line(data, config, tmp_path, capsys, override, message):
    videos = Path(data[0].removeprefix("data.root="))
    for name, text in {
        "classes.txt": "\n".join(CLASSES) + "\n",
        "malformed.txt": "train/left/0.mp4 0\nnonsense\n",
        "outside.txt": "train/left/0.mp4 99\n",
        "stranger.txt": "train/left/0.mp4,juggling\n",
        "notweights.pth": "these are no weights",
        "blocked": "a file where a folder should be",
    }.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "empty").mkdir()
    torch_file = tmp_path / "other.safetensors"
    from safetensors.torch import save_file

    save_file({"layer.weight": torch.zeros(3)}, torch_file)
    key, value = override.split("=", 1)
    files = {
        "EMPTY": tmp_path / "empty", "MALFORMED": tmp_path / "malformed.txt", "OUTSIDE": tmp_path / "outside.txt",
        "STRANGER": tmp_path / "stranger.txt", "NOTWEIGHTS": tmp_path / "notweights.pth", "OTHER": torch_file,
        "BLOCKED": tmp_path / "blocked" / "run",
    }  # fmt: skip
    extra = [f"data.classes={tmp_path / 'classes.txt'}"] if value in ("MALFORMED", "OUTSIDE", "STRANGER") else []
    overrides = [f"output={tmp_path / 'run'}", *extra, f"{key}={files.get(value, value)}"]
    assert videos.is_dir()
    assert run_here("train", config, *TINY, *data, *overrides) == 2
    assert_one_line(capsys, message)


def test_mistakes_outside_the_settings(config, tmp_path, capsys):
    assert run_here("train") == 2
    assert_one_line(capsys, r"takes one configuration file")
    assert run_here("train", str(tmp_path / "none.yaml")) == 2
    assert_one_line(capsys, r"none.yaml: no such configuration file")
    assert run_here("train", config, "--lr=3") == 2
    assert_one_line(capsys, r"unknown option '--lr=3'")
    assert run_here("train", "--help") == 0
    assert "accelerate launch -m stvideo.train" in capsys.readouterr().out


def test_a_configuration_cannot_build_objects(tmp_path, capsys):
    target = tmp_path / "code-was-run"
    hostile = tmp_path / "hostile.yaml"
    for text in (
        f"!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{target}']]",
        "${oc.env:HOME}",
    ):
        hostile.write_text(f"output: {text}\n")
        run_here("train", str(hostile), "data.root=/no/such/folder")
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
        assert not target.exists()


def test_a_mistake_ends_the_real_command_with_status_2(config, tmp_path):
    done = run_command("train", config, *TINY, f"data.root={tmp_path / 'nowhere'}", f"output={tmp_path / 'run'}")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "Traceback" not in done.stderr


def test_an_unreadable_video_is_replaced_and_counted(config, tmp_path, capsys):
    data = make_data(tmp_path / "videos")
    broken = tmp_path / "videos" / "train" / "left" / "0.mp4"
    broken.write_bytes(b"not a video" * 100)
    arguments = [config, *TINY, *data, f"output={tmp_path / 'run'}", "train.epochs=1", "data.batch_size=6"]
    assert run_here("train", *arguments, "data.max_unreadable=0.1") == 0
    assert sum(record["substituted_clips"] for record in read_log(tmp_path / "run", "train")) >= 1
    assert str(broken) in capsys.readouterr().err
    assert run_here("train", *arguments, "data.max_unreadable=0.01", "resume=never") == 2
    assert "data.max_unreadable" in capsys.readouterr().err
