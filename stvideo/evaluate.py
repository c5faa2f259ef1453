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
                                                predictions.csv, per_class.csv, confusion.png, worst_classes.png

    sweep=OPTION:VALUE,VALUE,...                measure at several budgets: keep_rate:0.9,0.7 (evit, random),
                                                grid:8x4x4,8x2x2 (stgm; Tx4x4: one slot per frame); a dense checkpoint
                                                gets EViT for a keep_rate and an STGM for a grid. Every video is decoded
                                                once for all of them. Writes sweep.png, sweep.json and
                                                predictions/ into RUN/sweep or output=
    evaluate.control=true                       a sweep also keeps random tokens at the cost of every reduced model
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stvideo.core.errors import StvideoError
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
from stvideo.weights.restore import Restored, restore, run_folder_of

CONFIG_SUFFIXES = (".yaml", ".yml")
HELP = (__doc__ or "").replace("{protocols}", "\n".join(" " * 8 + line for line in protocol_table().splitlines()))


def main(argv: list[str] | None = None) -> int:
    """Run the command. Returns its exit status."""
    positional, overrides = cli.split_arguments(argv, HELP)
    configs = [text for text in positional if text.endswith(CONFIG_SUFFIXES)]
    if len(configs) > 1:
        raise StvideoError(f"python -m stvideo.evaluate takes at most one configuration file, got {' '.join(configs)}")
    config_path = configs[0] if configs else None
    checkpoints = [text for text in positional if text not in configs]
    if checkpoints and any(text.startswith("checkpoint=") for text in overrides):
        raise StvideoError(f"checkpoints are given twice: {' '.join(checkpoints)} and checkpoint=")
    restored = [restore(config_path, [*overrides, f"checkpoint={checkpoint}"]) for checkpoint in checkpoints] or [
        restore(config_path, overrides)  # the configuration names one, or nobody does
    ]
    for each in restored:
        check_config(each.config)
    is_sweep = len(restored) > 1 or bool(restored[0].config.sweep)
    output = output_folder(restored, overrides, is_sweep)
    with explained(*memory_advice.for_evaluation(restored[0].config)):
        if is_sweep:
            sweep(restored, output)
        else:
            evaluate(restored[0], output)
    return 0


def evaluate(restored: Restored, output: Path) -> dict[str, Any]:
    """Measure a restored checkpoint on ``data.val`` and write the results into ``output``.

    Returns:
        What metrics.json holds (on the first process; elsewhere an empty dictionary).

    Raises:
        StvideoError: wrong settings, classes that are not the checkpoint's, an unreadable video.
    """
    config = restored.config
    prepare_output(output)
    accelerator = start_accelerator(
        precision=config.train.precision, timeout_minutes=config.train.process_timeout_minutes
    )
    videos = VideoSet(config, accelerator)
    restored.check_classes(videos.classes)
    gmacs = count_macs(restored.model, videos.clip_shape).total
    if accelerator.is_main_process:
        print(*restored.notes, sep="\n", flush=True)
    outcome = videos.evaluate([restored.model.to(accelerator.device)])
    metrics: dict[str, Any] = {}
    if outcome is not None and accelerator.is_main_process:
        metrics = describe(restored, videos, outcome, gmacs)
        files = write_results(output, restored, videos, outcome.predictions[0], metrics)
        print(one_line(metrics), flush=True)
        print(f"written: {', '.join(map(str, files))}", flush=True)
    accelerator.end_training()
    return metrics


def output_folder(restored: list[Restored], overrides: list[str], is_sweep: bool) -> Path:
    """Choose ``output=`` of the command line, else the run folder of the only checkpoint, else the configured output.

    Raises:
        StvideoError: several checkpoints without ``output=``.
    """
    config = restored[0].config
    if any(text.startswith("output=") for text in overrides):
        return Path(config.output)
    if len(restored) > 1:
        raise StvideoError("output= is missing: several checkpoints are measured; name the folder for their results")
    folder = run_folder_of(Path(config.checkpoint or "")) or Path(config.output)
    return folder / "sweep" if is_sweep else folder


if __name__ == "__main__":
    cli.run(main)
