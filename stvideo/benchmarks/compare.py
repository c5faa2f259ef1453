"""Models side by side on this machine: cost, speed, and how close both are to what is possible.

    python -m stvideo.benchmark timesformer_base_patch16_224 +evit.keep_rate=0.7 +stgm
    python -m stvideo.benchmark deit_small_patch16_224 evit_deit_small_patch16_224 stvit_deit_small_patch16_224
    python -m stvideo.benchmark configs/k400_stvit.yaml                (against the same model without its reduction)
    python -m stvideo.benchmark timesformer_base_patch16_224 +stgm --reference --optimize output=runs/speed
    python -m stvideo.benchmark timm:deit_small_patch16_224 "deit_small_patch16_224 evit.keep_rate=0.5" --optimize
    python -m stvideo.benchmark timesformer_base_patch16_224 "+evit.keep_rate=0.5 evit.scope=frame" mode=train
    python -m stvideo.benchmark configs/k400_stvit.yaml mode=end_to_end files=/data/k400/val

The first model is what the others are compared with; a single reduced model is compared with its dense one. Ways to
write a model:

{targets}

In every round each model runs once, in turns, in one process; a speed-up is the median of the per-round ratios, with
the lowest and the highest round in brackets. The columns:

    GMACs           multiply-accumulates of one clip, forward, as this form executes them
    speed-up        over the first model, in the same form where it has that, else over its eager form
    theory          what the GMACs promise: those of the model that the speed-up refers to, over this one's
    of theory       speed-up over theory
    over first row  with several forms: speed over the first row of the table, whatever its form
    of products     executed arithmetic per second, as a share of what torch's matrix product (the faster of those it
                    has) reaches here in the same rounds on the shapes of this model's own linear layers, with nothing
                    between them
    peak MiB        memory at the peak beyond weights, gradients and optimiser state: activations
    saved MiB       training: activations that the backward pass keeps
    p50 p90 p99     batch 1: milliseconds within which that share of the single calls was done

A table of its own says what the reductions cost themselves (scores, top-k, gather, fusion, pooling, cross-attention,
recovery, ...) on their real inputs, and what is left for the blocks. With mode=end_to_end the columns are

{end_to_end}

Settings:

    batch_sizes=1,2,8    clips per call, one table each
    rounds=null          more rounds, narrower spread; null: 10, with mode=end_to_end 3
    mode=forward         forward | train (forward, backward and AdamW) | end_to_end (from video files)
    precision=fp32       fp32 | bf16: automatic mixed precision, which converts the weights in every call as training
                         does; the form optimized holds them in bf16
    forms=eager          the forms in which each model is raced (below), e.g. forms=eager,compiled,onnx
    reference=false      one more form, textbook
    optimize=false       one more form, optimized
    compile=false        one more form, compiled (the first calls take a minute)
    device=auto          auto | cpu | cuda | cuda:N
    threads=null         CPU threads; null leaves torch's choice
    num_frames=null      of the clips, for every model; null is each model's own. So are img_size and num_classes
    img_size=null
    num_classes=null
    files=null           end_to_end: a folder, file or pattern of videos; null: the configuration's, else generated ones
    workers=null         end_to_end: loader processes; null: the configuration's, else one less than there are cores
    output=null          folder for benchmark.txt, .csv, .md, .json (every round) and, but for end_to_end, .png

Forms of a model:

{forms}

Switches may be written as options: --reference --optimize. The same code runs on CUDA, with the device's queue waited
for around every measurement; it has been tested on CPUs only. Weights are random unless a checkpoint is given. On a
busy machine look at the spread before the median.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import torch
from tqdm import tqdm

from stvideo.benchmarks import end_to_end as end_to_end_module
from stvideo.benchmarks import entrants as entrants_module
from stvideo.benchmarks import targets as targets_module
from stvideo.benchmarks.compare_settings import Settings
from stvideo.benchmarks.end_to_end import race_from_files
from stvideo.benchmarks.entrants import Entrant, enter
from stvideo.benchmarks.machine import describe_machine, machine_line
from stvideo.benchmarks.report import Report, Section
from stvideo.benchmarks.side_by_side import COLUMNS, call_counts, cost_rows, product_rates, run_batch
from stvideo.benchmarks.targets import Target, dense_counterpart, parse_targets
from stvideo.core.errors import StvideoError
from stvideo.drawing.speeds import plot_speeds
from stvideo.settings import cli
from stvideo.settings.command_settings import choose_device, read_command_line, read_settings

MOST_PASSES = 5  # for the reductions' own cost
COMPILED_AT_ONCE = 1024  # more versions of one function than any table has models


def main(argv: list[str] | None = None) -> int:
    """The command. Returns its exit status."""
    hint = '; what belongs to one model stands in its quotes, e.g. "deit_small_patch16_224 img_size=288"'
    positional, settings, strays = read_command_line(Settings, argv or [], help_text(), hint)
    if strays:
        read_settings(Settings, strays, hint)  # names the settings there are
    settings.check()
    report = compare(parse_targets(positional), settings)
    print(report.text(), end="")
    if settings.output:
        written = report.write(settings.output, "benchmark")
        if settings.mode != "end_to_end":
            written.append(Path(settings.output) / "benchmark.png")
            plot_speeds(written[-1], [row for s in report.sections if "part" not in s.rows[0] for row in s.rows])
        print("written: " + ", ".join(map(str, written)))
    return 0


def help_text() -> str:
    """The top of this file with what others say about themselves."""

    def second_part(module: object) -> str:
        return textwrap.indent((module.__doc__ or "").split("\n\n", 1)[1].rstrip(), "    ")

    text = (__doc__ or "").replace("{targets}", second_part(targets_module))
    text = text.replace("{forms}", second_part(entrants_module))
    return text.replace("{end_to_end}", second_part(end_to_end_module))


def compare(targets: list[Target], settings: Settings) -> Report:
    """Race the targets at every batch size; the first one is what the others are compared with."""
    device = choose_device(settings.device)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    entrants, notes = build_entrants(targets, settings, device)
    # Beyond its limit torch.compile would quietly run the rest as they are.
    with torch._dynamo.config.patch(recompile_limit=COMPILED_AT_ONCE, fail_on_recompile_limit_hit=True):
        if settings.mode == "end_to_end":
            return race_from_files(entrants, settings, device, notes)
        return race_in_memory(entrants, settings, device, notes)


def build_entrants(targets: list[Target], settings: Settings, device: torch.device) -> tuple[list[Entrant], list[str]]:
    """Every target in every form, with the dense one of a lone reduced model in front, and notes about them.

    Raises:
        StvideoError: as `Target.build` and `enter`, a model that cannot be trained, or no model that has a form.
    """
    common, forms = settings.constructor_arguments(), settings.chosen_forms()
    models = [(target, target.build(common)) for target in targets]
    if len(models) == 1:
        dense = dense_counterpart(*models[0])
        if dense is not None:
            models.insert(0, (dense, dense.build(common)))
    entrants: list[Entrant] = []
    notes: list[str] = []
    for target, model in models:
        if settings.training and (not model.num_classes or getattr(model, "features_only", False)):
            raise StvideoError(f"{target.label}: mode=train needs a model with a classification head")
        more, told = enter(
            target, model, forms, precision=settings.precision, device=device, training=settings.training
        )
        entrants += more
        notes += told
    for form in forms:
        if all(entrant.form != form for entrant in entrants):
            of = "dense TimeSformers with divided attention" if form == "textbook" else "this package's ViT-like models"
            raise StvideoError(f"{targets[0].label}: has no form {form!r}; that is for {of}")
    return entrants, notes


def race_in_memory(entrants: list[Entrant], settings: Settings, device: torch.device, notes: list[str]) -> Report:
    """Forward passes or training steps on random clips."""
    rounds, training = settings.number_of_rounds(), settings.training
    passes = min(rounds, MOST_PASSES)
    eager = 0 if training else sum(entrant.form == "eager" for entrant in entrants)
    sections = []
    with tqdm(total=len(settings.batch_sizes) * (rounds + eager), unit="round", leave=False, disable=None) as bar:
        for batch in settings.batch_sizes:
            bar.set_description(f"batch {batch}")
            torch._dynamo.reset()  # every shape is compiled for itself, so the last batch's code is not needed
            rows = run_batch(entrants, batch, rounds=rounds, device=device, training=training, on_round=bar.update)
            sections.append(Section(f"batch-{batch}", f"batch {batch}, {settings.mode}", rows))
            if not training:
                costs = cost_rows(entrants, batch, device=device, passes=passes, on_model=bar.update)
                title = f"batch {batch}, where the forward pass goes (eager, median of {passes} passes)"
                sections += [Section(f"own-cost-batch-{batch}", title, costs)] if costs else []
    machine = describe_machine(device)
    raced = [row for section in sections for row in section.rows if "rounds" in row]
    same = " in the same form, where it has that" if len({entrant.form for entrant in entrants}) > 1 else ""
    notes = [
        f"speed-up over {entrants[0].target.label}{same}: median of {rounds} interleaved rounds (lowest-highest), "
        f"{settings.precision}",
        *call_counts(raced),
        *product_rates(raced),
        *notes,
        machine_line(machine),
    ]
    return Report("Side by side", COLUMNS, sections, notes, machine)


if __name__ == "__main__":
    cli.run(main)
