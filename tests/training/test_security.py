"""Files are data: none of those that a command reads can run code, leave the run folder, or steer a terminal."""

import ast
import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from stvideo.core.messages import printable
from stvideo.training.checkpoint import CHECKSUMS, _checksums
from tests.tiny_runs import CLASSES, REPOSITORY, TINY, config_file, make_data, run_here


class Payload:
    """Touches a file as soon as it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.fixture(scope="module")
def trained(data, config, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "trained"
    arguments = [config, *TINY, *data, f"output={run}", "train.max_steps=1", "train.ema_decay=0.9"]
    assert run_here("train", *arguments) == 0
    return run


def write_pickle(path, target, writer):
    with path.open("wb") as file:
        writer({"model": Payload(target), "optimizer": Payload(target), "w": torch.zeros(2)}, file)
    return path


def assert_refused(status, capsys, target):
    assert status == 2
    lines = capsys.readouterr().err.strip().splitlines()
    errors = [line for line in lines if line.startswith("stvideo: error: ")]
    assert len(errors) == 1, lines
    assert not any("Traceback" in line for line in lines)
    assert not target.exists()


WRITERS = {"pickle": pickle.dump, "torch": torch.save}


@pytest.mark.parametrize(
    ("suffix", "writer"), [("pth", "torch"), ("pt", "pickle"), ("safetensors", "pickle"), ("safetensors", "torch")]
)
@pytest.mark.parametrize("key", ["init", "train.teacher", "checkpoint"])
def test_weights_that_would_run_code_are_refused(data, config, tmp_path, capsys, key, suffix, writer):
    target = tmp_path / "code-was-run"
    file = write_pickle(tmp_path / f"weights.{suffix}", target, WRITERS[writer])
    command = "evaluate" if key == "checkpoint" else "train"
    settings = [*data, f"output={tmp_path / 'run'}", f"{key}={file}"]
    assert_refused(run_here(command, config, *TINY, *settings), capsys, target)


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "training_state/weights.safetensors", "training_state/optimizer.pt",
     "training_state/progress.json", CHECKSUMS],
)  # fmt: skip
def test_a_checkpoint_folder_that_would_run_code_is_refused(trained, data, config, tmp_path, capsys, name, writer):
    """With checksums that fit: they guard against damage, not against malice."""
    run, target = tmp_path / "run", tmp_path / "code-was-run"
    shutil.copytree(trained, run, symlinks=True)
    folder = (run / "last").resolve()
    write_pickle(folder / name, target, WRITERS[writer])
    if name != CHECKSUMS:
        (folder / CHECKSUMS).unlink()
        (folder / CHECKSUMS).write_text(json.dumps(_checksums(folder)))
    settings = [*TINY, *data, f"output={run}", "train.max_steps=2", "train.ema_decay=0.9"]
    assert_refused(run_here("train", config, *settings), capsys, target)
    if name in ("model.safetensors", CHECKSUMS):
        assert_refused(run_here("evaluate", *data, f"checkpoint={folder}"), capsys, target)


@pytest.mark.parametrize(
    ("key", "name"),
    [("data.train", "list.txt"), ("data.train", "list.csv"), ("data.train", "list.json"), ("data.val", "list.txt"),
     ("data.classes", "classes.txt"), ("data.classes", "labels.json"), ("data.manifest", "manifest.csv"),
     ("data.manifest", "manifest.jsonl"), ("CONFIG", "config.yaml")],
)  # fmt: skip
def test_lists_and_settings_that_are_pickles_are_refused(data, config, tmp_path, capsys, key, name):
    target = tmp_path / "code-was-run"
    file = write_pickle(tmp_path / name, target, pickle.dump)
    first = str(file) if key == "CONFIG" else config
    override = [] if key == "CONFIG" else [f"{key}={file}"]
    status = run_here("train", first, *TINY, *data, f"output={tmp_path / 'run'}", *override)
    assert_refused(status, capsys, target)


def test_a_video_that_is_a_pickle_is_an_unreadable_video(config, tmp_path, capsys):
    target = tmp_path / "code-was-run"
    data = make_data(tmp_path / "videos")
    for split in ("train", "val"):
        write_pickle(tmp_path / "videos" / split / "left" / "0.mp4", target, pickle.dump)
    settings = [*TINY, *data, "data.max_unreadable=0.5", f"output={tmp_path / 'run'}", "train.epochs=1"]
    assert_refused(run_here("train", config, *settings), capsys, target)  # evaluation does without no video


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{target}']]",
        "!!python/object/new:os.system ['touch {target}']",
        "!!python/name:os.system",
    ],
)
@pytest.mark.parametrize("where", ["file", "command line", "inside a reduction"])
def test_settings_cannot_build_objects(data, config, tmp_path, capsys, text, where):
    target = tmp_path / "code-was-run"
    text = text.format(target=target)
    (tmp_path / "hostile.yaml").write_text(f"model: {{args: {{depth: {text}}}}}\n")
    arguments = {
        "file": [str(tmp_path / "hostile.yaml")],
        "command line": [config, f"train.max_steps={text}"],
        "inside a reduction": [config, f"model.reduction.evit={{keep_rate: {text}}}"],
    }[where]
    settings = [*TINY, *data, f"output={tmp_path / 'run'}"]
    assert_refused(run_here("train", *arguments[:1], *settings, *arguments[1:]), capsys, target)


def test_names_stay_inside_the_run_folder_and_off_the_terminal(data, tmp_path, capsys):
    """Class names that are paths, escape sequences and several lines; the list files may hold anything."""
    names = ["../../escape", "red\x1b[31m\x1b]0;title\x07", "two\nlines"]
    (tmp_path / "classes.json").write_text(json.dumps({name: str(number) for number, name in enumerate(names)}))
    root = data[0].removeprefix("data.root=")
    for split in ("train", "val"):
        files = sorted(Path(root, split).rglob("*.mp4"))
        lines = [f"{file.relative_to(root)} {CLASSES.index(file.parent.name)}\n" for file in files]
        (tmp_path / f"{split}.txt").write_text("".join(lines))
    lists = [data[0], f"data.train={tmp_path / 'train.txt'}", f"data.val={tmp_path / 'val.txt'}"]
    before = set(tmp_path.parent.rglob("*"))
    run, named = tmp_path / "run", [*lists, f"data.classes={tmp_path / 'classes.json'}", "data.flip=false"]
    settings = [*TINY, *named, f"output={run}", "train.max_steps=2", "train.trackers=[tensorboard]"]
    assert run_here("train", config_file(tmp_path), *settings) == 0
    assert run_here("evaluate", *named, f"checkpoint={run}") == 0
    (tmp_path / "train.txt").write_text("train/left/0.mp4,\x1b[2J\x1b]0;title\x07 no class\n")
    assert run_here("train", config_file(tmp_path), *settings) == 2
    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err
    assert "\x07" not in printed.out + printed.err
    new = set(tmp_path.parent.rglob("*")) - before
    assert all(run == path or run in path.parents for path in new - {tmp_path / "empty.yaml"})
    for line in (run / "log.jsonl").read_text().splitlines():
        assert isinstance(json.loads(line), dict)


def test_control_characters_are_spelled_out():
    assert printable("a\x1b[31m b\x00 \udce9 é \n") == "a\\x1b[31m b\\x00 \\udce9 é \n"


@pytest.mark.parametrize("line", ["../outside.mp4 0", "/etc/passwd 0", "train/../../outside.mp4 0"])
def test_a_list_cannot_name_files_outside_the_data(data, config, tmp_path, capsys, line):
    (tmp_path / "list.txt").write_text(line + "\n")
    settings = [*TINY, *data, f"data.train={tmp_path / 'list.txt'}", f"output={tmp_path / 'run'}"]
    assert_refused(run_here("train", config, *settings), capsys, tmp_path / "never")


# ---- what would have to be there for any of this to fail ----

FORBIDDEN = {"eval", "exec", "os.system", "os.popen", "pickle.load", "pickle.loads", "yaml.load", "yaml.unsafe_load",
             "yaml.full_load", "marshal.loads", "shelve.open", "joblib.load"}  # fmt: skip


@pytest.mark.parametrize(
    "file",
    [
        path.relative_to(REPOSITORY).as_posix()
        for top in ("stvideo", "data_tools")
        for path in (REPOSITORY / top).rglob("*.py")
    ],
)
def test_the_source_calls_nothing_that_runs_data(file):
    for node in ast.walk(ast.parse((REPOSITORY / file).read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        assert name not in FORBIDDEN, f"{file}:{node.lineno}: {name}"
        assert given.get("shell") in (None, "False"), f"{file}:{node.lineno}: shell"
        assert given.get("allow_pickle") in (None, "False"), f"{file}:{node.lineno}: allow_pickle"
        if name == "torch.load":
            assert given.get("weights_only") == "True", f"{file}:{node.lineno}: torch.load"
