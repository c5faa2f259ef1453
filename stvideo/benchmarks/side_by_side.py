"""Models side by side on this machine: cost, speed, and how close both are to what is possible.

    python -m stvideo.benchmark timesformer_base_patch16_224 +evit.keep_rate=0.7 +stgm
    python -m stvideo.benchmark deit_small_patch16_224 evit_deit_small_patch16_224 stvit_deit_small_patch16_224
    python -m stvideo.benchmark configs/k400_stvit.yaml                (against the same model without its reduction)
    python -m stvideo.benchmark timesformer_base_patch16_224 +stgm --reference --optimize output=runs/speed
    python -m stvideo.benchmark timm:deit_small_patch16_224 "deit_small_patch16_224 evit.keep_rate=0.5" --optimize
    python -m stvideo.benchmark timesformer_base_patch16_224 "+evit.keep_rate=0.5 evit.scope=frame" mode=train

The first model is what the others are compared with; a single reduced model is compared with its dense one. Ways to
write a model:

{candidates}

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
    peak MiB        on a GPU: memory at the peak beyond weights, gradients and optimiser state: activations
    saved MiB       training: activations that the backward pass keeps
    p50 p90 p99     batch 1: milliseconds within which that share of the single calls was done

Settings:

    batch_sizes=1,2,8    clips per call, one table each
    rounds=10            more rounds, narrower spread
    mode=forward         forward | train (forward, backward and AdamW)
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
    output=null          folder for benchmark.txt, .csv, .md, .json (every round) and .png

Forms of a model:

{forms}

Switches may be written as options: --reference --optimize. The same code runs on CUDA, with the device's queue waited
for around every measurement; it has been tested on CPUs only. Weights are random unless a checkpoint is given. On a
busy machine look at the spread before the median. How fast videos are read, and whether a model has to wait for them:
python -m stvideo.benchmark data --help.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from tqdm import tqdm

from stvideo.benchmarks import candidates as candidates_module
from stvideo.benchmarks import entrants as entrants_module
from stvideo.benchmarks.candidates import Candidate, dense_counterpart, parse_candidates
from stvideo.benchmarks.checks import check_at_least, check_choice, choose_device
from stvideo.benchmarks.entrants import FORMS, MODES, PRECISIONS, TRAINING_FORMS, Entrant, enter
from stvideo.benchmarks.machine import describe_machine, machine_line
from stvideo.benchmarks.report import Report, Section
from stvideo.benchmarks.rows import COLUMNS, Row, measure
from stvideo.core.errors import StvideoError, nearest
from stvideo.settings.cli import read_command_line

COMPILED_AT_ONCE = 1024  # more versions of one function than any table has models
HINT = '; what belongs to one model stands in its quotes, e.g. "deit_small_patch16_224 img_size=288"'


@dataclass
class ComparisonSettings:
    """The settings of the command line."""

    batch_sizes: list[int] = field(default_factory=lambda: [1, 2, 8])
    rounds: int = 10
    mode: str = "forward"
    precision: str = "fp32"
    forms: list[str] = field(default_factory=lambda: ["eager"])
    reference: bool = False
    optimize: bool = False
    compile: bool = False
    device: str = "auto"
    threads: int | None = None
    num_frames: int | None = None
    img_size: int | None = None
    num_classes: int | None = None
    output: str | None = None

    @property
    def training(self) -> bool:
        """Whether training steps are timed."""
        return self.mode == "train"

    def chosen_forms(self) -> list[str]:
        """List the forms in which every model is raced, in the order of `FORMS`.

        Raises:
            StvideoError: there is none, an unknown one, or one that does not go with the other settings.
        """
        switches = {"textbook": self.reference, "optimized": self.optimize, "compiled": self.compile}
        for form in self.forms:
            if form not in FORMS:
                raise StvideoError(f"forms={form}: no such form{nearest(form, FORMS)}; there are: {', '.join(FORMS)}")
        chosen = [form for form in FORMS if form in self.forms or switches.get(form)]
        if not chosen:
            raise StvideoError(f"forms=: name at least one of {', '.join(FORMS)}")
        for form in chosen:
            if self.training and form not in TRAINING_FORMS:
                raise StvideoError(f"mode=train: the form {form} does not train; forms are {', '.join(TRAINING_FORMS)}")
            if self.precision != "fp32" and form in ("exported", "onnx"):
                raise StvideoError(f"precision={self.precision}: the form {form} is float32; use precision=fp32")
        return chosen

    def check(self) -> None:
        """Check the values; raises `StvideoError`."""
        check_at_least(1, rounds=self.rounds, threads=self.threads, num_frames=self.num_frames)
        if not self.batch_sizes:
            raise StvideoError("batch_sizes=: name at least one number of clips, e.g. batch_sizes=1,8")
        for batch in self.batch_sizes:
            check_at_least(1, batch_sizes=batch)
        check_choice(PRECISIONS, precision=self.precision)
        check_choice(MODES, mode=self.mode)


def run(argv: Sequence[str]) -> tuple[Report, ComparisonSettings]:
    """Carry out the command line ``argv``."""
    text = __doc__ or ""
    for name, module in (("candidates", candidates_module), ("forms", entrants_module)):
        below_title = (module.__doc__ or "").split("\n\n", 1)[1].rstrip()
        text = text.replace(f"{{{name}}}", textwrap.indent(below_title, "    "))
    positional, settings, strays = read_command_line(ComparisonSettings, argv, text, HINT)
    if strays:
        raise StvideoError(f"the command line: unknown setting {strays[0]!r}{HINT}")
    settings.check()
    return compare(parse_candidates(positional), settings), settings


def compare(candidates: Sequence[Candidate], settings: ComparisonSettings) -> Report:
    """Race the candidates at every batch size; the first one is what the others are compared with."""
    device = choose_device(settings.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    entrants = build_entrants(candidates, settings, device)
    sections = []
    # Beyond its limit torch.compile would quietly run the rest as they are.
    with torch._dynamo.config.patch(recompile_limit=COMPILED_AT_ONCE, fail_on_recompile_limit_hit=True):
        for batch in settings.batch_sizes:
            torch._dynamo.reset()  # every shape is compiled for itself, so the last batch's code is not needed
            title = f"batch {batch}"
            with tqdm(total=settings.rounds, desc=title, unit="round", leave=False, disable=None) as bar:
                rows = measure(entrants, batch, rounds=settings.rounds, device=device, on_round=bar.update)
            sections.append(Section(f"batch-{batch}", f"{title}, {settings.mode}", rows))
    machine = describe_machine(device)
    notes = describe_rounds(entrants, settings, [row for section in sections for row in section.rows])
    return Report("Side by side", COLUMNS, sections, [*notes, machine_line(machine)], machine)


def build_entrants(
    candidates: Sequence[Candidate], settings: ComparisonSettings, device: torch.device
) -> list[Entrant]:
    """Build every candidate in every form, with the dense one of a lone reduced model in front.

    Raises:
        StvideoError: as `Candidate.build` and `enter`, a model that cannot be trained, or no model that has a form.
    """
    forms = settings.chosen_forms()
    given = dict(num_frames=settings.num_frames, img_size=settings.img_size, num_classes=settings.num_classes)
    common = {key: value for key, value in given.items() if value is not None}
    models = [(candidate, candidate.build(common)) for candidate in candidates]
    dense = dense_counterpart(*models[0]) if len(models) == 1 else None
    if dense is not None:
        models.insert(0, (dense, dense.build(common)))
    entrants: list[Entrant] = []
    for candidate, model in models:
        if settings.training and (not model.num_classes or model.features_only):
            raise StvideoError(f"{candidate.label}: mode=train needs a model with a classification head")
        entrants += enter(
            candidate, model, forms, precision=settings.precision, device=device, training=settings.training
        )
    for form in forms:
        if all(entrant.form != form for entrant in entrants):
            of = "dense TimeSformers with divided attention" if form == "textbook" else "this package's models"
            raise StvideoError(f"{candidates[0].label}: has no form {form!r}; that is for {of}")
    return entrants


def describe_rounds(entrants: Sequence[Entrant], settings: ComparisonSettings, rows: Sequence[Row]) -> list[str]:
    """Say what the numbers of a report refer to."""
    same = " in the same form, where it has that" if len({entrant.form for entrant in entrants}) > 1 else ""
    notes = [
        f"speed-up over {entrants[0].candidate.name}{same}: median of {settings.rounds} interleaved rounds "
        f"(lowest-highest), {settings.precision}"
    ]
    rates = [2 * row["product_gmacs_per_second"] for row in rows if row["product_gmacs_per_second"]]
    if rates:
        notes.append(
            f"matrix products of the models' own shapes ran at {min(rates):.0f} to {max(rates):.0f} GFLOP/s here "
            "(two FLOPs are one multiply-accumulate)"
        )
    return notes
