"""The main job from end to end on generated clips: train, evaluate, explain, compare.

    python -m stvideo.demo                   everything, about a quarter of an hour on two CPU cores
    python -m stvideo.demo --short           the same path with few clips and steps; its accuracies mean nothing
    python -m stvideo.demo output=FOLDER     where to put it (default: runs/demo, or runs/demo-short)

Writes H.264 clips of eight motions, trains a small dense TimeSformer, the same with semantic tokens (STGM), with token
reorganization (EViT), with random tokens kept at the cost of the STGM (the control), and on single frames, evaluates
them all on unseen clips (with confusion matrices), sweeps EViT's keep rate over the dense weights against random tokens
at equal cost, draws token masks and HTML pages, and prints one table. Every step is one of the commands that anybody
would type, and is printed. Started again, it goes on where it was.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from stvideo.benchmarks.timing import Timing, race_models
from stvideo.core.errors import StvideoError
from stvideo.core.messages import logger
from stvideo.runtime.run_folder import write_atomically
from stvideo.settings import cli
from stvideo.weights.factory import load_model

REPOSITORY = Path(__file__).resolve().parent.parent
CONFIG = "configs/demo.yaml"
MIN_DENSE_TOP1 = 90.0
BATCH = 16  # clips, for the speeds
# Decoding runs beside training: threads that compete with it for the same cores slow such small networks down.
THREADS = max(1, (os.cpu_count() or 1) // 2)
STGM = "{layers: [1, 2], grid: [null, 3, 3]}"
SWEEP = "sweep=keep_rate:0.8,0.6,0.4,0.25"


@dataclass(frozen=True)
class Contestant:
    """One row of the table: what to call it and how its training differs from configs/demo.yaml."""

    name: str
    title: str
    overrides: tuple[str, ...] = ()
    from_dense: bool = False
    pictures: bool = False


CONTESTANTS = (
    Contestant("dense", "dense TimeSformer"),
    Contestant("stgm", "STGM, 3 x 3 tokens a frame", (f"model.reduction.stgm={STGM}",), True, True),
    Contestant("evit", "EViT, keep 0.5 twice", ("model.reduction.evit={keep_rate: 0.5, layers: [1, 2]}",), True, True),
    Contestant(
        "random",
        "random tokens, cost of STGM",
        (f"model.reduction.random={{layers: [1, 2], equal_to: {{stgm: {STGM}}}}}",),
        True,
        True,
    ),
    Contestant("frame", "dense, one frame", ("data.num_frames=1",)),
)


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    train_per_class: int
    test_per_class: int
    epochs: int
    fine_tuning_epochs: int


FULL = Size(train_per_class=600, test_per_class=60, epochs=4, fine_tuning_epochs=2)
SHORT = Size(train_per_class=16, test_per_class=4, epochs=2, fine_tuning_epochs=1)


def main(argv: list[str] | None = None) -> int:
    """The command. Returns 1 if the dense model learned less than it should have."""
    positional, overrides = cli.split_arguments(argv, __doc__ or "", flags=("--short",))
    short = "--short" in positional
    output = Path("runs/demo-short" if short else "runs/demo")
    for text in overrides:
        if not text.startswith("output="):
            raise StvideoError(f"the demo takes output=FOLDER and --short, not {text!r}; train takes every setting")
        output = Path(text.removeprefix("output="))
    return run_demo(output, SHORT if short else FULL, check=not short)


def run_demo(output: Path, size: Size, *, check: bool) -> int:
    """Everything, in order; see the top of this file."""
    started = time.monotonic()
    if not (REPOSITORY / "data_tools" / "motion.py").exists():
        raise StvideoError("the demo needs the repository (configs/ and data_tools/), not only the installed package")
    output = output.resolve()
    write_clips(output / "data", size)
    for contestant in CONTESTANTS:
        train(contestant, output, size)
    for contestant in CONTESTANTS:
        evaluate(contestant, output)
    sweep(output)
    call("-m", "stvideo.compare", str(output / "stgm"), str(output / "random"))
    draw_masks(output)
    torch.set_num_threads(THREADS)
    models = {c.name: load_model(output / c.name) for c in CONTESTANTS}
    training, evaluation = (race_models(models, batch_size=BATCH, training=t) for t in (True, False))
    rows = [row(c, output, training[c.name], evaluation[c.name]) for c in CONTESTANTS]
    print("\n" + save_table(rows, output), flush=True)
    print(f"\n{what_to_look_at(output)}\n{time.monotonic() - started:.0f} seconds in all", flush=True)
    return verdict(rows) if check else 0


def write_clips(folder: Path, size: Size) -> None:
    """Eight motions, with other textures and seeds for testing than for training."""
    counts = [f"train_per_class={size.train_per_class}", f"test_per_class={size.test_per_class}"]
    call("data_tools/motion.py", str(folder), *counts)


def train(contestant: Contestant, output: Path, size: Size) -> None:
    """Train one contestant; the reduced ones start from the dense model, and all of those for equally long."""
    settings = [f"train.epochs={size.epochs}", *contestant.overrides]
    if contestant.from_dense:
        settings = [
            f"init={output / 'dense'}",
            f"train.epochs={size.fine_tuning_epochs}",
            "train.lr=1e-3",
            *contestant.overrides,
        ]
    call("-m", "stvideo.train", CONFIG, f"data.root={output / 'data'}", f"output={output / contestant.name}", *settings)


def evaluate(contestant: Contestant, output: Path) -> None:
    """Measure it on the unseen clips."""
    call("-m", "stvideo.evaluate", CONFIG, f"data.root={output / 'data'}", f"checkpoint={output / contestant.name}")


def sweep(output: Path) -> None:
    """Accuracy against cost with the dense weights as they are: EViT at several keep rates, and random tokens."""
    settings = [f"data.root={output / 'data'}", SWEEP, f"output={output / 'curve'}"]
    call("-m", "stvideo.evaluate", CONFIG, str(output / "dense"), *settings)


def draw_masks(output: Path) -> None:
    """Token masks of two unseen clips for every method."""
    clips = [str(output / "data" / "val" / motion / "000000.mp4") for motion in ("right", "toward")]
    for contestant in CONTESTANTS:
        if contestant.pictures:
            target = output / "pictures" / contestant.name
            call("-m", "stvideo.visualize", *clips, f"checkpoint={output / contestant.name}", f"output={target}")


def what_to_look_at(output: Path) -> str:
    """The pictures and pages that were written, each with what it shows."""
    shown = [
        ("accuracy against cost, EViT and random tokens", output / "curve" / "sweep.png"),
        *((f"confusion matrix, {c.title}", output / c.name / "confusion.png") for c in CONTESTANTS),
        *((f"page to scrub through, {page.parent.name}", page) for page in sorted(output.glob("pictures/*/*.html"))),
    ]
    width = max(len(what) for what, _ in shown)
    return "\n".join(f"{what:<{width}}  {path}" for what, path in shown if path.exists())


def row(contestant: Contestant, output: Path, training: Timing, evaluation: Timing) -> dict[str, Any]:
    """What the table says of one contestant."""
    metrics = json.loads((output / contestant.name / "metrics.json").read_text())
    return {
        "name": contestant.name,
        "title": contestant.title,
        "top1": metrics["top1"],
        "gmacs_per_view": metrics["gmacs_per_view"],
        "training_clips_per_second": BATCH / (training.median or float("nan")),
        "evaluation_clips_per_second": BATCH / (evaluation.median or float("nan")),
        "reduction": metrics["reduction"],
        "evaluated": metrics["evaluated"],
        "views": metrics["views"],
    }


def save_table(rows: list[dict[str, Any]], output: Path) -> str:
    """Write table.json, table.md and table.txt; returns the text."""
    head = ["model", "top-1 %", "GMACs per view", "training clips/s", "evaluation clips/s"]
    cells = [
        [
            r["title"],
            f"{r['top1']:.1f}",
            f"{r['gmacs_per_view']:.4f}",
            f"{r['training_clips_per_second']:.0f}",
            f"{r['evaluation_clips_per_second']:.0f}",
        ]
        for r in rows
    ]
    widths = [max(len(line[i]) for line in [head, *cells]) for i in range(len(head))]

    def line(values: list[str], start: str = "", between: str = "  ", end: str = "") -> str:
        padded = [values[0].ljust(widths[0]), *(v.rjust(w) for v, w in zip(values[1:], widths[1:], strict=True))]
        return start + between.join(padded) + end

    note = (
        f"{rows[0]['views']} view (clips x crops), {rows[0]['evaluated']} unseen clips. Speeds: the median over "
        "batches of 16 clips that all models computed in turns, without reading videos."
    )
    rule = "|".join(["", "-" * (widths[0] + 2), *("-" * (w + 1) + ":" for w in widths[1:]), ""])
    markdown = [line(head, "| ", " | ", " |"), rule, *(line(c, "| ", " | ", " |") for c in cells), "", note]
    text = "\n".join([line(head), line(["-" * w for w in widths]), *map(line, cells), note])
    write_atomically(output / "table.json", json.dumps(rows, indent=2) + "\n")
    write_atomically(output / "table.md", "\n".join(markdown) + "\n")
    write_atomically(output / "table.txt", text + "\n")
    return text


def verdict(rows: list[dict[str, Any]]) -> int:
    """Whether the table shows what it should: the dense model learns motion, a single frame does not."""
    top1 = {r["name"]: r["top1"] for r in rows}
    if top1["dense"] < MIN_DENSE_TOP1:
        logger.warning(
            f"the dense model reached {top1['dense']:.1f} %, below the {MIN_DENSE_TOP1:.0f} % that it should"
        )
        return 1
    return 0


def call(*arguments: str) -> None:
    """Run one command as a person would, in the repository, and show it.

    Raises:
        StvideoError: it failed.
    """
    shown = shlex.join(["python", *(os.path.relpath(a, REPOSITORY) if a.startswith("/") else a for a in arguments)])
    print(f"\n$ {shown}", flush=True)
    environment = {"OMP_NUM_THREADS": str(THREADS), **os.environ}
    status = subprocess.run([sys.executable, *arguments], cwd=REPOSITORY, env=environment).returncode
    if status != 0:
        raise StvideoError(f"this step of the demo ended with status {status}: {shown}")


if __name__ == "__main__":
    cli.run(main)
