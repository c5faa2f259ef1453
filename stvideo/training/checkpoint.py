"""Checkpoints of a run: written beside and renamed, checked on load, the last few and the best kept.

    checkpoints/step-00000120/
        model.safetensors              the weights to evaluate: the moving average if there is one
        training_state/weights.safetensors   the weights being trained, where they are not the same
        training_state/optimizer.pt    optimiser and fp16 scaler, read back without unpickling code
        training_state/progress.json   how far the run is, and with which configuration
        checksums.json                 SHA-256 of every file above

No random state is stored: every draw of a step is a function of the seed, the step and the process
(`stvideo.core.seeding.step_seed`), and every draw of a sample of the seed, the epoch and the video.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from stvideo.core.errors import StvideoError
from stvideo.core.messages import logger
from stvideo.runtime.run_folder import RunFolder, keep_as
from stvideo.settings.config import Config, to_dict
from stvideo.training.progress import Progress
from stvideo.weights.reading import read_torch

STATE = "training_state"
CHECKSUMS = "checksums.json"


def save_checkpoint(run: RunFolder, *, progress: Progress, keep: int, is_best: bool, **content: Any) -> Path:
    """Write one checkpoint, point RUN/last (and RUN/best) to it and delete the oldest. First process only.

    Args:
        keep: how many of the newest to keep; the best one stays in any case.
        content: as for `write_checkpoint`.

    Raises:
        StvideoError: the disk is full or not writable; earlier checkpoints are untouched.
    """
    final = run.checkpoints / f"step-{progress.step:08d}"
    try:
        write_checkpoint(final, progress=progress, **content)
        run.point("last", final)
        if is_best:
            run.point("best", final)
    except (OSError, SafetensorError) as error:
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space" in str(error)
        raise StvideoError(
            f"{final}: cannot write the checkpoint: {'the disk is full' if full else error}; earlier checkpoints are "
            "intact, free some space and start the same command again to continue"
        ) from None
    _delete_old(run, keep)
    return final


def write_checkpoint(
    final: Path,
    *,
    write_model: Callable[[Path], None],
    weights: dict[str, Tensor] | None,
    optimizer: dict[str, Any],
    scaler: dict[str, Any] | None,
    progress: Progress,
    facts: dict[str, Any],
    config: Config,
) -> None:
    """Write the folder ``final`` beside its place and rename it, so that a crash leaves all of it or nothing.

    Args:
        write_model: writes model.safetensors to the path it is given.
        weights: the weights being trained, where they differ from what ``write_model`` writes.
        facts: processes, global batch, classes and videos, so that a resume can say what differs.

    Raises:
        OSError, SafetensorError: it cannot be written; nothing is left of it.
    """
    temporary = final.with_name(f".tmp-{final.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        (temporary / STATE).mkdir(parents=True)
        write_model(temporary / "model.safetensors")
        if weights is not None:
            save_file(
                {k: v.detach().cpu().contiguous() for k, v in weights.items()},
                temporary / STATE / "weights.safetensors",
            )
        buffer = io.BytesIO()  # torch.save hides the reason when the disk is full
        torch.save({"optimizer": optimizer, "scaler": scaler}, buffer)
        (temporary / STATE / "optimizer.pt").write_bytes(buffer.getbuffer())
        state = {"progress": asdict(progress), "facts": facts, "config": to_dict(config)}
        (temporary / STATE / "progress.json").write_text(json.dumps(state, indent=2) + "\n")
        (temporary / CHECKSUMS).write_text(json.dumps(_checksums(temporary), indent=2) + "\n")
        _flush_to_disk([*temporary.rglob("*"), temporary])
        if final.exists():  # the same step again, for instance with its evaluation done
            shutil.rmtree(_previous(final), ignore_errors=True)
            final.rename(_previous(final))
        temporary.rename(final)
        _flush_to_disk([final.parent])
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    shutil.rmtree(_previous(final), ignore_errors=True)


def check_checkpoint(folder: Path) -> str | None:
    """Check that every file of a checkpoint folder is there with its checksum; returns the fault, or None."""
    try:
        expected = json.loads((folder / CHECKSUMS).read_text())
    except FileNotFoundError:
        return f"{CHECKSUMS} is missing"
    except (OSError, ValueError):
        return f"{CHECKSUMS} cannot be read"
    if not isinstance(expected, dict) or "model.safetensors" not in expected:
        return f"{CHECKSUMS} does not list the weights"
    for name, checksum in expected.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
            return f"{name} is missing"
        if _sha256(path) != checksum:
            return f"{name} does not have its checksum"
    return None


def find_checkpoint(resume: str, run: RunFolder) -> Path | None:
    """Find the checkpoint to continue from. First process only.

    A damaged one is reported and the one before it is used.

    Args:
        resume: "auto" (the newest of this run, if any) or the path of a run or checkpoint folder.

    Raises:
        StvideoError: the path holds no checkpoint, or every checkpoint is damaged.
    """
    folder = run.checkpoints if resume == "auto" else Path(resume)
    if resume != "auto":
        if not folder.is_dir():
            raise StvideoError(
                f"resume={resume}: no such run or checkpoint folder; resume takes auto, never or a folder"
            )
        if (folder / STATE).is_dir():
            problem = check_checkpoint(folder.resolve())
            if problem:
                raise StvideoError(f"resume={resume}: damaged checkpoint: {problem}")
            return folder.resolve()
        folder = folder / "checkpoints" if (folder / "checkpoints").is_dir() else folder
    _finish_renaming(folder)
    damaged: list[Path] = []
    for candidate in sorted(folder.glob("step-*[0-9]"), reverse=True):
        problem = check_checkpoint(candidate)
        if problem is None:
            # Where none is whole, all keep their names: the same command must not quietly start afresh.
            for one in damaged if resume == "auto" else []:
                keep_as(one, "damaged")
            return candidate.resolve()
        logger.warning(f"{candidate}: damaged checkpoint ({problem}); trying the one before")
        damaged.append(candidate)
    if damaged:
        raise StvideoError(f"{folder}: every checkpoint is damaged; start afresh with resume=never or another output")
    if resume != "auto":
        raise StvideoError(f"resume={resume}: there is no checkpoint in it")
    return None


@dataclass
class SavedState:
    """What a checkpoint holds besides the weights to evaluate."""

    weights: dict[str, Tensor]
    average: dict[str, Tensor] | None
    optimizer: dict[str, Any]
    scaler: dict[str, Any] | None
    progress: Progress
    facts: dict[str, Any]
    config: dict[str, Any]


def load_state(folder: Path) -> SavedState:
    """Read a checkpoint back to continue from it; nothing in it can run code.

    Raises:
        StvideoError: a file is not what it should be.
    """
    try:
        average = load_file(folder / "model.safetensors")
        own = folder / STATE / "weights.safetensors"
        state = json.loads((folder / STATE / "progress.json").read_text())
        saved = read_torch(folder / STATE / "optimizer.pt")
        return SavedState(
            weights=load_file(own) if own.exists() else average,
            average=average if own.exists() else None,
            optimizer=saved["optimizer"],
            scaler=saved["scaler"],
            progress=Progress(**state["progress"]),
            facts=state["facts"],
            config=state["config"],
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise StvideoError(
            f"{folder}: cannot continue from this checkpoint: {' '.join(str(error).split())[:300]}"
        ) from None


def check_same_model(saved: dict[str, Any], config: Config, folder: Path) -> None:
    """Refuse to continue a run whose model was another one.

    Raises:
        StvideoError: the settings that differ.
    """
    current = to_dict(config)
    pairs = {f"model.{key}": (saved["model"].get(key), value) for key, value in current["model"].items()}
    pairs |= {f"data.{key}": (saved["data"].get(key), current["data"][key]) for key in ("num_frames", "img_size")}
    pairs.pop("model.grad_checkpointing")  # costs time, changes nothing
    differing = [f"{key} was {then}, is {now}" for key, (then, now) in pairs.items() if then != now]
    if differing:
        raise StvideoError(
            f"{folder}: cannot continue with another model: {'; '.join(differing)}. Use another output=, resume=never, "
            "or init=CHECKPOINT to start a new run from these weights"
        )


def other_differences(saved: dict[str, Any], current: dict[str, Any], prefix: str = "") -> list[str]:
    """Settings besides the model that a resumed run changes, as "key was a, is b"."""
    found = []
    for key, now in current.items():
        then = saved.get(key)
        if isinstance(now, dict) and isinstance(then, dict):
            found += other_differences(then, now, f"{prefix}{key}.")
        elif then != now and not prefix.startswith("model.") and key not in ("resume", "output"):
            found.append(f"{prefix}{key} was {then}, is {now}")
    return found


def _checksums(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _sha256(path) for path in files}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
        return digest.hexdigest()


def _previous(final: Path) -> Path:
    """Name the folder that keeps the earlier checkpoint of the same step until the new one replaces it."""
    return final.with_name(f".old-{final.name}")


def _finish_renaming(folder: Path) -> None:
    """Put an earlier checkpoint back if the process died after moving it and before the new one took its place."""
    for previous in folder.glob(".old-step-*"):
        final = previous.with_name(previous.name.removeprefix(".old-"))
        if not final.exists():
            previous.rename(final)


def _flush_to_disk(paths: Iterable[Path]) -> None:
    """Flush files to disk, so that no rename reaches it before the data it names."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _delete_old(run: RunFolder, keep: int) -> None:
    for leftover in run.checkpoints.glob(".*-step-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    folders = sorted(path for path in run.checkpoints.iterdir() if re.fullmatch(r"step-\d+", path.name))
    protected = {run.target("best"), run.target("last")}
    for folder in folders[: -max(1, keep)]:
        if folder.resolve() not in protected:
            shutil.rmtree(folder, ignore_errors=True)
