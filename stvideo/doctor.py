"""What is installed, what decodes here, which kernels and devices there are, what is missing, and what to do about it.

    python -m stvideo.doctor            a line for each thing that was tried
    python -m stvideo.doctor --json     the same for programs
    python -m stvideo.doctor --quick    without torch.compile, which takes the longest

Nothing is believed, everything is tried: a tiny clip of each codec is read by each decoder, attention runs in each
number format, a function is compiled, a file is written. Every probe runs in a process of its own with a time limit, so
that one that hangs or crashes is one more line. Green: works. Yellow: works, but something is missing or slower. Red:
something that is needed is broken. Exit status: 0 usable, 1 something is red, 2 a mistake on the command line.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stvideo.core.errors import StvideoError
from stvideo.diagnosis import compute, decoding, packages, system
from stvideo.diagnosis.finding import BROKEN, LESS, OK, Finding
from stvideo.preparation.jobs import Failure, Report, run_jobs
from stvideo.settings import cli

Probe = tuple[str, ...]
"""Kind, and what the probe of that kind needs."""

TIMEOUT = 120.0  # seconds for each probe; the compiler is the slowest
COLORS = {OK: "\033[32m", LESS: "\033[33m", BROKEN: "\033[31m"}
MARKS = {OK: "ok  ", LESS: "less", BROKEN: "BAD "}
HEADINGS = (packages.GROUP, decoding.GROUP, compute.GROUP, system.GROUP)


def main(argv: list[str] | None = None) -> int:
    """The command. Returns its exit status."""
    given, overrides = cli.split_arguments(argv, __doc__ or "", flags=("--json", "--quick"))
    wrong = [text for text in (*given, *overrides) if text not in ("--json", "--quick")]
    if wrong:
        raise StvideoError(f"python -m stvideo.doctor takes --json and --quick only, got {' '.join(wrong)}")
    with tempfile.TemporaryDirectory(prefix="stvideo-doctor-") as folder:
        findings = gather(probes(Path(folder), quick="--quick" in given))
    status = int(any(finding.level == BROKEN for finding in findings))
    if "--json" in given:
        print(json.dumps({"status": status, "findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        print(text(findings, color=sys.stdout.isatty() and not os.environ.get("NO_COLOR")), end="")
    return status


def probes(folder: Path, quick: bool) -> list[Probe]:
    """Everything there is to try; clips are encoded into ``folder`` first."""
    clips = str(folder)
    return [
        ("clips", clips),
        ("python",),
        *(("package", name) for name in packages.PACKAGES),
        *(
            ("decoder", decoder, codec, clips)
            for codec in decoding.CODECS
            for decoder in ("pyav", "decord", "torchcodec")
        ),
        *((kind,) for kind in ("processor", "gpu", "attention", "distributed")),
        *([] if quick else [("compiler",)]),
        *((kind,) for kind in ("folders", "shared memory", "open files", "loader process")),
    ]


def examine(probe: Probe, report: Report) -> list[Finding]:
    """Carry out one probe, in a worker process."""
    kind, *needs = probe
    simple: dict[str, Callable[[], list[Finding]]] = {
        "python": packages.check_python,
        "processor": compute.check_processor,
        "gpu": compute.check_gpu,
        "attention": compute.check_attention,
        "compiler": compute.check_compiler,
        "distributed": compute.check_distributed,
        "folders": system.check_folders,
        "shared memory": system.check_shared_memory,
        "open files": system.check_open_files,
        "loader process": system.check_loader_process,
    }
    if kind == "clips":
        return decoding.write_clips(Path(needs[0]))
    if kind == "package":
        return packages.check_package(needs[0])
    if kind == "decoder":
        return decoding.check_decoder(needs[0], needs[1], Path(needs[2]))
    return simple[kind]()


def gather(
    wanted: Sequence[Probe],
    carry_out: Callable[[Probe, Report], list[Finding]] = examine,
    timeout: float = TIMEOUT,
) -> list[Finding]:
    """What all probes found, in their order. One that hangs or crashes is a finding too."""
    found: dict[Probe, list[Finding]] = {}
    with tqdm(total=len(wanted), unit="probe", leave=False, disable=None) as bar:
        for stage in (wanted[:1], wanted[1:]):  # the clips come before those who read them
            for probe, outcome in run_jobs(carry_out, stage, workers=1, timeout=timeout):
                found[probe] = [_failed(probe, outcome)] if isinstance(outcome, Failure) else outcome
                bar.update()
    findings = [finding for probe in wanted for finding in found.get(probe, [])]
    return sorted(findings, key=lambda finding: HEADINGS.index(finding.group))


def _failed(probe: Probe, failure: Failure) -> Finding:
    """What to say of a probe that gave no answer."""
    kind = probe[0]
    words = {"timeout": "hangs", "crash": "crashes"}.get(failure.kind, "fails") + f": {failure.reason}"
    if kind == "package":
        needed = packages.PACKAGES[probe[1]][1]
        advice = packages.ADVICE.get(probe[1], f"pip install --force-reinstall {probe[1]}")
        return Finding(packages.GROUP, probe[1], BROKEN if needed else LESS, words, advice)
    if kind == "decoder":
        needed = probe[1:3] == ("pyav", decoding.NEEDED)
        advice = decoding.UPGRADE if probe[1] == "pyav" else f"do not set data.decoder={probe[1]}: PyAV reads it"
        return Finding(decoding.GROUP, f"{probe[2]} by {probe[1]}", BROKEN if needed else LESS, words, advice)
    if kind == "clips":
        return Finding(decoding.GROUP, "encoding clips", LESS, words, decoding.UPGRADE)
    if kind == "compiler":
        return Finding(compute.GROUP, "torch.compile", LESS, words, "leave train.compile=false")
    if kind == "gpu":
        return Finding(compute.GROUP, "GPU", BROKEN, words, "check driver and CUDA version; nvidia-smi")
    if kind == "loader process":
        return Finding(system.GROUP, kind, BROKEN, words, "more shared memory, or data.workers=0")
    group = system.GROUP if kind in ("folders", "shared memory", "open files") else compute.GROUP
    return Finding(group, kind, LESS, words, "reinstall torch if training fails too")


def text(findings: Sequence[Finding], color: bool) -> str:
    """The report for people: a line each, and what to do below those that are not green."""
    lines: list[str] = []
    width = max((len(finding.name) for finding in findings), default=0)
    group: Any = None
    for finding in findings:
        if finding.group != group:
            group = finding.group
            lines += ["", group]
        mark = MARKS[finding.level]
        if color:
            mark = f"{COLORS[finding.level]}{mark}\033[0m"
        lines.append(f"  {mark}  {finding.name:<{width}}  {finding.text}")
        if finding.advice and finding.level != OK:
            lines.append(f"        {'':<{width}}  -> {finding.advice}")
    red = [finding.name for finding in findings if finding.level == BROKEN]
    less = sum(finding.level == LESS for finding in findings)
    know = f", with {less} thing{'s' * (less > 1)} to know" if less else ""
    verdict = f"not usable: {', '.join(red)}" if red else f"usable{know}"
    return "\n".join([*lines[1:], "", verdict]) + "\n"


if __name__ == "__main__":
    cli.run(main)
