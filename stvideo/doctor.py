"""What is installed, what decodes here, which kernels and devices there are, what is missing, and what to do about it.

    python -m stvideo.doctor            a line for each thing that was tried
    python -m stvideo.doctor --json     the same for programs

Nothing is believed, everything is tried: a tiny clip of each codec is read by each decoder, attention runs in each
number format, a file is written. Every check runs in a process with a time limit, so that one that hangs or crashes is
one more line. ok: works. less: something optional is missing, or slower. BAD: something that is needed is broken.
Exit status: 0 usable, 1 something is BAD, 2 a mistake on the command line.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from stvideo.core.errors import StvideoError
from stvideo.diagnosis import checks
from stvideo.preparation.jobs import Failure, run_jobs
from stvideo.settings import cli


class Check(NamedTuple):
    """A function that returns what it found or raises; whether its failure is BAD, and what to do then."""

    name: str
    function: Callable[..., str]
    arguments: tuple[str, ...] = ()
    needed: bool = False
    advice: str = ""


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    given, overrides = cli.split_arguments(argv, __doc__ or "", flags=("--json",))
    wrong = [text for text in (*given, *overrides) if text != "--json"]
    if wrong:
        raise StvideoError(f"python -m stvideo.doctor takes --json only, got {' '.join(wrong)}")
    with tempfile.TemporaryDirectory(prefix="stvideo-doctor-") as folder:
        findings = carry_out(all_checks(folder))
    status = int(any(finding["level"] == "BAD" for finding in findings))
    print(json.dumps({"status": status, "findings": findings}, indent=2) if given else in_lines(findings))
    return status


def all_checks(clips: str) -> Iterable[Check]:
    """List everything there is to try; clips are encoded into the folder ``clips``."""
    yield Check("python", platform.python_version)
    for name, requirement, needed in checks.requirements():
        yield Check(name, checks.check_package, (requirement,), needed, f'pip install "{requirement}"')
    for codec in checks.CODECS:
        advice, needed = "pip install --upgrade av", codec == "h264"
        yield Check(f"{codec} by pyav", checks.check_decoder, ("pyav", codec, clips), needed, advice)
        for decoder in ("decord", "torchcodec") if codec != "av1" else ("torchcodec",):  # decord has no AV1
            arguments = (decoder, codec, clips)
            yield Check(f"{codec} by {decoder}", checks.check_decoder, arguments, False, "nothing: PyAV reads it")
    gpu, write = torch.cuda.is_available(), checks.check_folder
    yield Check("GPU", checks.check_gpu, (), gpu, "training needs a GPU, its driver and a CUDA build of torch")
    advice = "a newer torch: without fused attention long clips need much memory"
    yield Check("attention", checks.check_attention, ("cuda" if gpu else "cpu",), False, advice)
    yield Check("output", write, ("runs",), True, "start from another folder, or set output=FOLDER")
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    yield Check("cache", write, (cache,), False, "set XDG_CACHE_HOME, HF_HOME and TORCH_HOME to another folder")
    yield Check("temporary files", write, (tempfile.gettempdir(),), True, "set TMPDIR to another folder")
    advice = "docker run --shm-size=8g (or --ipc=host), or data.workers=0"
    yield Check("shared memory", checks.check_shared_memory, (), False, advice)


def carry_out(wanted: Iterable[Check], timeout: float = 120.0) -> list[dict[str, str]]:
    """Run every check in a worker process, each for ``timeout`` seconds at most; what hangs or crashes has failed."""
    findings = []
    for check, outcome in run_jobs(_perform, wanted, workers=1, timeout=timeout):
        if isinstance(outcome, Failure):
            level, text, advice = "BAD" if check.needed else "less", _in_words(outcome), check.advice
        else:
            level, text, advice = "ok", outcome, ""
        findings.append(dict(name=check.name, level=level, text=text, advice=advice))
    return findings


def _perform(check: Check, alive: Any) -> str | Failure:
    """Run one check in a worker process."""
    try:
        return check.function(*check.arguments)
    except Exception as error:
        return Failure("error", " ".join(str(error).split())[:160] or repr(error))


def _in_words(failure: Failure) -> str:
    if failure.kind == "crash":
        return f"crashes ({failure.reason.rpartition('(')[2]}"
    return "hangs" if failure.kind == "timeout" else failure.reason


def in_lines(findings: list[dict[str, str]]) -> str:
    """Format the report for people: a line each, and what to do below those that are not ok."""
    lines = []
    for finding in findings:
        lines.append(f"{finding['level']:<4}  {finding['name']:<18}  {finding['text']}")
        lines += [f"{'':<24}    -> {finding['advice']}"] if finding["advice"] else []
    bad = [finding["name"] for finding in findings if finding["level"] == "BAD"]
    return "\n".join([*lines, "", f"not usable: {', '.join(bad)}" if bad else "usable"])


if __name__ == "__main__":
    cli.run(main)
