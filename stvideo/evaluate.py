"""Evaluate a checkpoint on whole videos.

    python -m stvideo.evaluate configs/k400_stvit.yaml checkpoint=runs/k400_stvit
    accelerate launch -m stvideo.evaluate configs/ssv2_stvit.yaml checkpoint=runs/x evaluate.views=2x3
    python -m stvideo.evaluate checkpoint=runs/x data.root=/data/k400 data.val=val.csv      without a configuration

checkpoint is a run folder (its best; RUN/last for the newest), a .safetensors file or an official TimeSformer file.
Model, classes, normalisation, sampling and crop come from it; the configuration says which videos. Further settings:

    evaluate.views=1x3                          clips x crops per video; their softmax scores are averaged
    model.reduction.evit.keep_rate=0.5          evaluate with another reduction, without training
    model.reduction=null                        evaluate the dense model with the same weights
    output=FOLDER                               where the results go (default: the run folder): metrics.json,
                                                predictions.csv, confusion.png, worst_classes.png
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from stvideo import cli
from stvideo.config import Config
from stvideo.data.datasets import VideoDataset, build_dataset
from stvideo.data.loader import build_loader
from stvideo.errors import StvideoError
from stvideo.evaluation_pictures import write_evaluation_pictures
from stvideo.macs import count_macs
from stvideo.metrics import Predictions
from stvideo.training.checks import check_config, parse_views
from stvideo.training.clips import ClipPreparer
from stvideo.training.distributed import start_accelerator
from stvideo.training.evaluation import Evaluation, evaluate_model
from stvideo.training.restore import Restored, restore, run_folder_of
from stvideo.training.run_folder import prepare_output, write_atomically


def main(argv: list[str] | None = None) -> int:
    """The command. Returns its exit status."""
    positional, overrides = cli.split_arguments(argv, __doc__ or "")
    if len(positional) > 1:
        raise StvideoError(
            f"python -m stvideo.evaluate takes at most one configuration file, got {' '.join(positional)}"
        )
    evaluate(restore(positional[0] if positional else None, overrides), overrides)
    return 0


def evaluate(restored: Restored, overrides: list[str]) -> dict[str, Any]:
    """Measure a restored checkpoint on ``data.val`` and write what was found.

    Returns:
        What metrics.json holds (on the first process; elsewhere an empty dictionary).

    Raises:
        StvideoError: wrong settings, classes that are not the checkpoint's, an unreadable video.
    """
    config = restored.config
    check_config(config)
    clips, crops = parse_views(config.evaluate.views)
    output = output_folder(config, overrides)
    prepare_output(output)
    accelerator = start_accelerator(
        precision=config.train.precision, timeout_minutes=config.train.process_timeout_minutes
    )
    dataset = build_dataset(config.data, split="val", views=config.evaluate.views)
    restored.check_classes(list(dataset.classes))
    torch.manual_seed(config.train.seed + accelerator.process_index)  # a random reduction draws the same every time
    model = restored.model.to(accelerator.device).eval()
    loader = build_loader(
        dataset,
        batch_size=config.evaluate.batch_size or config.data.batch_size,
        workers=config.data.workers,
        seed=config.train.seed,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        train=False,
    )
    num_views = clips * crops
    shape = (1, 3, config.data.num_frames, config.data.img_size, config.data.img_size)
    gmacs = count_macs(model, shape).total
    if accelerator.is_main_process:
        for note in restored.notes:
            print(note, flush=True)
    with tqdm(total=len(dataset), unit="clip", disable=None if accelerator.is_main_process else True) as bar:
        outcome = evaluate_model(
            model,
            loader,
            accelerator=accelerator,
            prepare=ClipPreparer(config.data, accelerator.device, num_classes=len(restored.classes)).clip,
            num_videos=len(dataset) // num_views,
            num_views=num_views,
            on_batch=lambda count: bar.update(count * accelerator.num_processes) and None,
        )
    assert outcome is not None
    metrics: dict[str, Any] = {}
    if accelerator.is_main_process and outcome.predictions is not None:
        metrics = describe(restored, outcome, outcome.predictions, gmacs, dataset.expected, accelerator.num_processes)
        write_atomically(output / "metrics.json", json.dumps(metrics, indent=2) + "\n")
        write_predictions(output / "predictions.csv", outcome.predictions, restored.classes, dataset)
        print(one_line(metrics), flush=True)
        pictures = draw_mistakes(output, outcome.predictions, restored, dataset)
        files = [output / "metrics.json", output / "predictions.csv", *pictures]
        print(f"written: {', '.join(map(str, files))}", flush=True)
    accelerator.end_training()
    return metrics


def describe(
    restored: Restored, outcome: Evaluation, predictions: Predictions, gmacs: float, expected: int, processes: int
) -> dict[str, Any]:
    """What metrics.json says: the scores, and everything needed to compare them."""
    return {
        **predictions.metrics(),
        "classes": predictions.scores.shape[1],
        "views": restored.config.evaluate.views,
        "averaging": "softmax, per video",
        "evaluated": len(predictions.index),
        "expected": expected,
        "gmacs_per_view": gmacs,
        "parameters": sum(p.numel() for p in restored.model.parameters()),
        "clips_per_second": outcome.clips_per_second,
        "data_wait_share": outcome.data_wait_share,
        "model": restored.metadata.get("model", {}).get("name"),
        "reduction": restored.reduction,
        "checkpoint": str(restored.path),
        "step": restored.metadata.get("step"),
        "precision": restored.config.train.precision,
        "processes": processes,
    }


def one_line(metrics: dict[str, Any]) -> str:
    """The result as one line, with what a number needs beside it."""
    capped = "" if metrics["classes"] >= 5 else f" (there are only {metrics['classes']} classes)"
    scores = f"top-1 {metrics['top1']:.2f} %, top-5 {metrics['top5']:.2f} %{capped}"
    return (
        f"{scores} | {metrics['views']} views (clips x crops), softmax averaged per video | "
        f"{metrics['evaluated']} of {metrics['expected']} videos | {metrics['gmacs_per_view']:.4g} GMACs per view | "
        f"{metrics['clips_per_second']:.1f} clips/s, {metrics['data_wait_share']:.0%} of the time waiting for data"
    )


def write_predictions(path: Path, predictions: Predictions, classes: list[str], dataset: Any) -> None:
    """One line per video: its path, the true class, and the five best classes with their scores."""
    count = min(5, predictions.scores.shape[1])
    best = predictions.top_k(count)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        ranks = range(1, count + 1)
        writer.writerow(["index", "video", "truth", *(f"top{k}" for k in ranks), *(f"score{k}" for k in ranks)])
        for row, (index, truth) in enumerate(zip(predictions.index, predictions.truth, strict=True)):
            names = [classes[k] for k in best[row]]
            scores = [f"{predictions.scores[row, k]:.6f}" for k in best[row]]
            writer.writerow([index, dataset.path(int(index)), classes[truth], *names, *scores])
    temporary.replace(path)


def draw_mistakes(output: Path, predictions: Predictions, restored: Restored, dataset: VideoDataset) -> list[Path]:
    """The confusion matrix and frames of the classes that went worst."""
    return write_evaluation_pictures(
        output,
        predictions.scores,
        predictions.truth,
        restored.classes,
        path_of=lambda row: dataset.path(int(predictions.index[row])),
        title=str(restored.path),
    )


def output_folder(config: Config, overrides: list[str]) -> Path:
    """``output=`` of the command line, else the run folder that holds the checkpoint, else the configured output."""
    given = any(text.startswith("output=") for text in overrides)
    run = None if given else run_folder_of(Path(config.checkpoint or ""))
    return run or Path(config.output)


if __name__ == "__main__":
    cli.run(main)
