"""Runs of the real commands on tiny encoded videos, for the tests of training and evaluation."""

import contextlib
import json
import os
import re
import secrets
import socket
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import torch
from safetensors.torch import load_file

from stvideo import compare, evaluate, train
from stvideo.settings import cli

REPOSITORY = Path(__file__).parent.parent
CLASSES = ("left", "right", "up")
TRAIN_VIDEOS, VAL_VIDEOS = 18, 7
PATIENCE = 500  # seconds for what takes some ten; only a hang is to be ended by it

# A model and clips small enough for a step to take milliseconds; with everything that draws random numbers.
TINY = [
    "model.name=timesformer_tiny_patch16_224",
    "model.args={embed_dim: 32, depth: 3, num_heads: 2}",
    "data.batch_size=4",
    "data.workers=0",
    "data.num_frames=4",
    "data.stride=3",
    "data.img_size=32",
    "data.short_side=[32,40]",
    "train.lr=1e-3",
    "train.epochs=3",
    "train.log_every_steps=1",
    "train.trackers=[]",
    "evaluate.views=2x1",
]

# Everything that draws random numbers or carries state from step to step.
RANDOM = [
    "model.drop_path_rate=0.2",
    "model.drop_rate=0.1",
    "model.reduction.random={keep_rate: 0.5, layers: [1]}",
    "data.mixup=0.5",
    "data.cutmix=0.5",
    "data.rand_augment=m7-n2",
    "data.batch_size=2",
    "train.accumulation_steps=2",
    "train.ema_decay=0.99",
]


def write_video(path, label, seed, frames=24):
    """An H.264 file of 64 x 48 pixels: a textured square that moves as its label says, on a grey of its own."""
    generator = np.random.default_rng(seed)
    texture = generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=30, options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for t in range(frames):
            picture = np.full((48, 64, 3), 40 + 80 * CLASSES.index(label), np.uint8)
            x, y = {"left": (46 - 2 * t, 16), "right": (2 * t, 16), "up": (24, 31 - t)}[label]
            x, y = max(0, min(48, x)), max(0, min(32, y))
            picture[y : y + 16, x : x + 16] = texture
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")):
                output.mux(packet)
        for packet in stream.encode():
            output.mux(packet)


def make_data(root):
    """Two splits as folders of class folders. Returns the overrides that point to them."""
    for split, count in (("train", TRAIN_VIDEOS), ("val", VAL_VIDEOS)):
        for number in range(count):
            label = CLASSES[number % len(CLASSES)]
            write_video(root / split / label / f"{number}.mp4", label, seed=number + 1000 * (split == "val"))
    return [f"data.root={root}", "data.train=train", "data.val=val"]


def config_file(folder):
    """An empty configuration: every setting then comes from the command line."""
    path = Path(folder) / "empty.yaml"
    path.write_text("output: runs/none\n")
    return str(path)


def environment():
    """The environment of a command in a process of its own: one thread, no second copy of the launcher's variables."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    return {k: v for k, v in os.environ.items() if k not in names} | {"OMP_NUM_THREADS": "1"}


def command(module, *arguments, processes=1):
    """The command line that runs ``stvideo.<module>`` on one or several processes."""
    if processes == 1:
        return [sys.executable, "-m", f"stvideo.{module}", *arguments]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    return [sys.executable, *launcher, "-m", f"stvideo.{module}", *arguments]


def run_command(module, *arguments, processes=1, timeout=PATIENCE):
    """Run it to its end."""
    return subprocess.run(
        command(module, *arguments, processes=processes),
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env=environment(),
        timeout=timeout,
    )


def run_here(module, *arguments):
    """The same without a process of its own, through the same entry point. Returns the exit status."""
    try:
        cli.run({"train": train.main, "evaluate": evaluate.main, "compare": compare.main}[module], arguments)
    except SystemExit as end:
        return end.code


def read_log(run, kind=None):
    """The records of log.jsonl, all or of one kind."""
    records = [json.loads(line) for line in (Path(run) / "log.jsonl").read_text().splitlines()]
    return [record for record in records if kind in (None, record["kind"])]


def start(*arguments, processes=1, environment_of_rank=None):
    """A training command in the background, in a process group of its own."""
    return subprocess.Popen(
        command("train", *arguments, processes=processes),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env=environment() | (environment_of_rank or {}),
        start_new_session=True,
    )


def wait_for(process, start_of_line):
    for line in process.stdout:
        if line.startswith(start_of_line):
            return
    raise AssertionError(process.stderr.read())


def free_port():
    """A port that nobody listens on, and that nobody is given before it is used.

    The system gives out higher ones itself, and every test process takes its own thousand.
    """
    first = 12_000 + 1000 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    while True:
        port = first + secrets.randbelow(1000)
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", port))
            return str(port)


def last_before(run, step):
    """Overrides that make a killed run go on from a step before ``step``: none, unless the kill came too late for that.

    The run has kept a checkpoint of every step.
    """
    folder = Path(run) / "checkpoints"
    reached = max(int(path.name.removeprefix("step-")) for path in folder.glob("step-????????"))
    return [f"resume={folder / f'step-{step - 1:08d}'}"] if reached >= step else []


def state_of(run, step):
    """Every tensor that decides how training goes on."""
    folder = Path(run) / "checkpoints" / f"step-{step:08d}"
    tensors = {f"model.{k}": v for k, v in load_file(folder / "model.safetensors").items()}
    own = folder / "training_state" / "weights.safetensors"
    if own.exists():
        tensors |= {f"weights.{k}": v for k, v in load_file(own).items()}
    optimizer = torch.load(folder / "training_state" / "optimizer.pt", weights_only=True)["optimizer"]
    for number, values in optimizer["state"].items():
        tensors |= {f"optimizer.{number}.{k}": v for k, v in values.items()}
    return tensors


def assert_same_state(run, other, step):
    a, b = state_of(run, step), state_of(other, step)
    assert a.keys() == b.keys()
    differing = [name for name in a if not torch.equal(a[name], b[name])]
    assert not differing
    losses = [{r["step"]: r["loss"] for r in read_log(folder, "train")} for folder in (run, other)]
    assert losses[0] == losses[1]


def assert_one_line(capsys, pattern):
    """stderr is exactly one line, and it says what ``pattern`` says."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("stvideo: error: ")
    assert re.search(pattern, lines[0]), lines[0]
