"""Train, evaluate and compare all contestants of a study; started again it goes on.

    python -m stvideo.study configs/studies/demo.yaml                  results in runs/demo
    python -m stvideo.study configs/studies/demo.yaml output=DIR data.root=/data train.epochs=1

A study file is a comparison as data:

    output: runs/keep_rates                   where the results go; other settings here hold for all contestants
    study:
      base: configs/k400_timesformer.yaml     what all contestants share
      seeds: [0, 1, 2]                        every contestant is trained once with each
      contestants:
        dense: {title: dense TimeSformer}
        evit: {from: dense, title: EViT 0.7, train.epochs: 2, model.reduction: {evit: {keep_rate: 0.7}}}
        random: {from: dense, model.reduction: {random: {equal_to: {evit: {keep_rate: 0.7}}}}, train.epochs: 2}
      compare: [[evit, random]]               whose difference to report; default: everything against the first
      launch: accelerate launch               how to start each run; default: one process

`from: NAME` starts from the best weights of that contestant with the same seed. The keys of a contestant are those of
any configuration; settings on the command line hold for all contestants, over their own.

Every run is an ordinary `stvideo.train` and `stvideo.evaluate` in OUTPUT/NAME-seedN, with what they print in train.log
and evaluate.log there. Killed and started again, a study skips the runs that are done and continues the one that was
not. A run that fails is named at the end (exit status 1), the others go on.

Writes study.md, study.json and study.png: top-1 over the seeds, paired 95 % intervals of the differences (bootstrap
over videos and seeds together), GMACs, and clips/s of all contestants measured in turns.
"""

from __future__ import annotations

from pathlib import Path

from stvideo.core.errors import StvideoError
from stvideo.core.messages import print_line
from stvideo.runtime.lock import RunLock
from stvideo.runtime.processes import start_accelerator
from stvideo.runtime.run_folder import prepare_output
from stvideo.runtime.signals import StopSignal
from stvideo.settings import cli
from stvideo.study.plan import read_study
from stvideo.study.results import compare_runs, write_results
from stvideo.study.runs import list_runs, work_off


def main(argv: list[str] | None = None) -> int:
    """Run the command. Returns 0, 1 if a run failed, or 128 + the signal that asked it to stop."""
    positional, overrides = cli.split_arguments(argv, __doc__ or "")
    study = read_study(Path(cli.one_config(positional, "study")), overrides)
    accelerator = start_accelerator(precision=study.contestants[0].config.train.precision)
    if accelerator.num_processes > 1:
        raise StvideoError("a study is one process; study.launch in its file starts each run on several devices")
    prepare_output(study.output)
    with RunLock(study.output, accelerator), StopSignal() as stop:
        runs = list_runs(study)
        for run in runs:
            run.check_unchanged()
        failures = work_off(study, runs, stop)
        if stop.reason is not None:
            print(f"stopped {stop.reason}; the same command continues this study", flush=True)
            return stop.exit_status
        failed = {run.contestant.name for run in runs if run.folder in failures}
        complete = [run for run in runs if run.contestant.name not in failed]
        if complete:
            text, files = write_results(study.output, compare_runs(study, complete, accelerator.device))
            print(f"\n{text}\n\nwritten: {', '.join(map(str, files))}", flush=True)
    for folder, reason in failures.items():
        print_line("error", f"{folder}: {reason}")
    return 1 if failures else 0
