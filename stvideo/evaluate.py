"""Evaluate a checkpoint on whole videos.

    python -m stvideo.evaluate configs/k400_stvit.yaml checkpoint=runs/k400_stvit evaluate.views=k400-1x3
    accelerate launch -m stvideo.evaluate configs/ssv2_stvit.yaml checkpoint=runs/x evaluate.views=ssv2-2x3
    python -m stvideo.evaluate runs/x data.root=/data/k400 data.val=val.csv                 without a configuration
    python -m stvideo.evaluate runs/x sweep=keep_rate:1.0,0.9,0.8,0.7,0.5                   accuracy against cost
    python -m stvideo.evaluate runs/dense runs/evit runs/stgm output=runs/curve             several runs in one plot
    python -m stvideo.compare runs/evit runs/dense                                          are two results different?

A checkpoint (a positional argument, or checkpoint=) is a run folder (its best; RUN/last for the newest), a
.safetensors file or an official file. Model, classes, normalisation, sampling and crop come from it; the configuration
says which videos. Further settings:

    evaluate.views=1x3                          clips x crops per video, or a protocol by name:
{protocols}
    evaluate.average=softmax                    softmax | logits: what is averaged over the views of a video
    evaluate.unreadable=stop                    stop at an unreadable video, or list: leave it out, count it as missing
                                                and name it; it is never replaced by another
    model.reduction.evit.keep_rate=0.5          evaluate with another reduction, without training
    model.reduction=null                        evaluate the dense model with the same weights
    output=FOLDER                               where the results go (default: the run folder): metrics.json,
                                                predictions.csv, per_class.csv, per_class.txt, confusion.png,
                                                worst_classes.png

    sweep=OPTION:VALUE,VALUE,...                measure at several budgets: keep_rate:0.9,0.7 (evit, random),
                                                grid:8x4x4,8x2x2 (stgm; Tx4x4: one slot per frame); a dense checkpoint
                                                gets EViT for a keep_rate and an STGM for a grid. Every video is decoded
                                                once for all of them. Writes sweep.png, sweep.csv, sweep.json and
                                                predictions/ into RUN/sweep or output=
    evaluate.control=true                       a sweep also keeps random tokens at the cost of every reduced model
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stvideo.core.errors import StvideoError
from stvideo.core.files import exists
from stvideo.core.macs import count_macs
from stvideo.core.out_of_memory import explained
from stvideo.data.clips.protocols import protocol_table
from stvideo.evaluation.report import describe, one_line, write_results
from stvideo.evaluation.sweep import sweep
from stvideo.evaluation.video_set import VideoSet
from stvideo.runtime.processes import start_accelerator
from stvideo.runtime.run_folder import prepare_output
from stvideo.settings import cli, memory_advice
from stvideo.settings.checks import check_config
from stvideo.settings.config import Config
from stvideo.weights.restore import Restored, restore, run_folder_of

CONFIG_SUFFIXES = (".yaml", ".yml")
HELP = (__doc__ or "").replace("{protocols}", "\n".join(" " * 8 + line for line in protocol_table().splitlines()))


def main(argv: list[str] | None = None) -> int:
    """The command. Returns its exit status."""
    positional, overrides = cli.split_arguments(argv, HELP)
    configs = [text for text in positional if text.endswith(CONFIG_SUFFIXES)]
    if len(configs) > 1:
        raise StvideoError(f"python -m stvideo.evaluate takes at most one configuration file, got {' '.join(configs)}")
    config_path = configs[0] if configs else None
    checkpoints, overrides = split_checkpoints([text for text in positional if text not in configs], overrides)
    restored = [restore(config_path, [*overrides, f"checkpoint={checkpoint}"]) for checkpoint in checkpoints] or [
        restore(config_path, overrides)  # the configuration names one, or nobody does
    ]
    for each in restored:
        check_config(each.config)
    with explained(*memory_advice.for_evaluation(restored[0].config)):
        if len(restored) > 1 or restored[0].config.sweep:
            sweep(restored, output_of_sweep(restored, overrides))
        else:
            evaluate(restored[0], overrides)
    return 0


def evaluate(restored: Restored, overrides: list[str]) -> dict[str, Any]:
    """Measure a restored checkpoint on ``data.val`` and write what was found.

    Returns:
        What metrics.json holds (on the first process; elsewhere an empty dictionary).

    Raises:
        StvideoError: wrong settings, classes that are not the checkpoint's, an unreadable video.
    """
    config = restored.config
    output = output_folder(config, overrides)
    prepare_output(output)
    accelerator = start_accelerator(
        precision=config.train.precision, timeout_minutes=config.train.process_timeout_minutes
    )
    videos = VideoSet(config, accelerator)
    restored.check_classes(videos.classes)
    gmacs = count_macs(restored.model, videos.clip_shape).total
    if accelerator.is_main_process:
        print(*restored.notes, sep="\n", flush=True)
    outcome = videos.evaluate([restored.model.to(accelerator.device)])[0]
    metrics: dict[str, Any] = {}
    if accelerator.is_main_process:
        metrics = describe(restored, videos, outcome, gmacs)
        files = write_results(output, restored, videos, outcome, metrics)
        print(one_line(metrics), flush=True)
        print(f"written: {', '.join(map(str, files))}", flush=True)
    accelerator.end_training()
    return metrics


def split_checkpoints(positional: list[str], overrides: list[str]) -> tuple[list[str], list[str]]:
    """The checkpoints of the command line (positional, ``checkpoint=A`` or ``checkpoint=[A,B]``), and the rest of it.

    Raises:
        StvideoError: checkpoints in both ways.
    """
    given = [text.split("=", 1)[1] for text in overrides if text.startswith("checkpoint=")]
    others = [text for text in overrides if not text.startswith("checkpoint=")]
    if given and positional:
        raise StvideoError(
            f"checkpoints are given twice: {' '.join(positional)} and checkpoint={given[-1]}; a configuration file "
            f"ends in {' or '.join(CONFIG_SUFFIXES)}"
        )
    if not given:
        return positional, others
    text = given[-1]
    several = [text] if exists(text) else [part.strip() for part in text.strip("[]").split(",")]
    return [part for part in several if part], others


def output_folder(config: Config, overrides: list[str]) -> Path:
    """``output=`` of the command line, else the run folder that holds the checkpoint, else the configured output."""
    given = any(text.startswith("output=") for text in overrides)
    run = None if given else run_folder_of(Path(config.checkpoint or ""))
    return run or Path(config.output)


def output_of_sweep(restored: list[Restored], overrides: list[str]) -> Path:
    """``output=`` of the command line, else the folder ``sweep`` of the only run.

    Raises:
        StvideoError: several runs, and nobody says where to.
    """
    if len(restored) > 1 and not any(text.startswith("output=") for text in overrides):
        raise StvideoError("output= is missing: several checkpoints are measured; name the folder for their results")
    output = output_folder(restored[0].config, overrides)
    return output if any(text.startswith("output=") for text in overrides) else output / "sweep"


if __name__ == "__main__":
    cli.run(main)
