"""Encode the videos of a data set anew, small and quick to read; see data_tools/resize.py."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stvideo.core.errors import StvideoError
from stvideo.data.lists.manifest import CsvRow
from stvideo.preparation.inspection import file_state
from stvideo.preparation.jobs import Failure, count_workers, run_jobs
from stvideo.preparation.table import Table
from stvideo.preparation.terminal import aligned, progress
from stvideo.preparation.transcode import Encoding, Recipe, encoder_problem, transcode

FILE_NAME = "resized.csv"
_SHOWN = 20  # failed files that are printed; the table has all


@dataclass(frozen=True)
class ResizedRow(CsvRow):
    """What became of a file. ``status``: done | shortened (kept up to a damage) | failed."""

    path: str
    target: str
    status: str
    reason: str
    frames: int
    width: int
    height: int
    bytes_before: int
    bytes: int
    modified: int
    recipe: str


def resize(
    root: Path,
    targets: dict[str, str],
    output: Path,
    recipe: Recipe,
    workers: int = 0,
    timeout: float = 60.0,
    retry: bool = False,
) -> list[ResizedRow]:
    """Encode ``root / path`` as ``output / target`` for every (path, target), as far as that is not done yet.

    Args:
        recipe: size, key frames and quality.
        workers: processes; 0 takes one per CPU core.
        timeout: seconds without a new frame before a file counts as hanging.
        retry: try files again that failed earlier.

    Returns:
        What the table in the output says about them, in the same order.

    Raises:
        StvideoError: the output cannot be written or lies where the originals are, or there is no encoder.
    """
    keep_apart(root, output)
    with Table(output / FILE_NAME, ResizedRow) as table:
        todo = {
            path: target
            for path, target in targets.items()
            if not _is_done(table.rows.get(path), root / path, output / target, recipe, retry)
        }
        known = [table.rows[path] for path in targets.keys() - todo.keys()]
        if known:
            print(f"{output}: {len(known):,} of {len(targets):,} videos are done already", file=sys.stderr)
        if todo:
            problem = encoder_problem()
            if problem:
                raise StvideoError(problem)
            with progress(len(todo), "resize", sum(row.status == "failed" for row in known)) as step:
                for failed in _encode(table, root, todo, output, recipe, count_workers(workers, len(todo)), timeout):
                    step(failed)
        table.finish(targets)
        return [table.rows[path] for path in targets]


def _encode(
    table: Table[ResizedRow], root: Path, targets: dict[str, str], output: Path, recipe: Recipe, workers: int,
    timeout: float,
) -> Iterator[bool]:  # fmt: skip
    """Encode all, add each to the table, and tell of each whether it failed."""
    fresh: dict[str, ResizedRow] = {}  # what is known of a file before it is encoded
    path_of: dict[str, str] = {}
    for path, target in targets.items():
        size, modified = file_state(root / path)
        fresh[path] = ResizedRow(path, target, "failed", "", 0, 0, 0, size, 0, modified, str(recipe))
        final = output / target
        if (final.exists() or final.is_symlink()) and not _is_ours(table.rows.get(path), target):
            reason = f"{final} is there already and was not made from it: delete it or name another output"
            table.add(replace(fresh[path], reason=reason))
            yield True
        else:
            path_of[str(_unfinished(final))] = path
    jobs = (Encoding(str(root / path), unfinished, recipe) for unfinished, path in path_of.items())
    for job, outcome in run_jobs(transcode, jobs, workers=workers, timeout=timeout):
        path, unfinished = path_of[job.target], Path(job.target)
        final = output / targets[path]
        if isinstance(outcome, Failure):
            unfinished.unlink(missing_ok=True)
            if outcome.kind == "full":
                raise StvideoError(f"{final}: cannot be written ({outcome.reason}); the same command goes on later")
            if _is_ours(table.rows.get(path), targets[path]):
                final.unlink(missing_ok=True)  # made from what the source was earlier
            table.add(replace(fresh[path], reason=outcome.reason))
        else:
            # First the line, then the name: a file with a name and without a line is somebody else's.
            new, status = outcome, "shortened" if outcome.note else "done"
            row = replace(fresh[path], status=status, reason=new.note, frames=new.frames, bytes=new.bytes)
            table.add(replace(row, width=new.width, height=new.height))
            unfinished.replace(final)
        yield isinstance(outcome, Failure)


def target_names(paths: Sequence[str]) -> dict[str, str]:
    """path -> name of its output: the same with .mp4, or with .mp4 added if that is another video's already."""
    taken = {path for path in paths if path.endswith(".mp4")}
    names = {}
    for path in paths:
        name = path
        if not path.endswith(".mp4"):
            name = path.rsplit(".", 1)[0] + ".mp4" if "." in path.rsplit("/", 1)[-1] else path + ".mp4"
            while name in taken:
                name = path + ".mp4" if name != path + ".mp4" else name[:-4] + "_.mp4"
            taken.add(name)
        names[path] = name
    return names


def report(rows: Sequence[ResizedRow], output: Path) -> str:
    """Summarise for people."""
    done = [row for row in rows if row.status != "failed"]
    lines = []
    for status, what in (("shortened", "kept up to a damage"), ("failed", "failed, nothing written")):
        group = [(row.path, row.reason) for row in rows if row.status == status]
        if group:
            lines += [f"{what}: {len(group):,} videos, see {output / FILE_NAME}", *aligned(group, most=_SHOWN)]
    before, after = sum(row.bytes_before for row in done), sum(row.bytes for row in done)
    ratio = f", {after / before:.2f} times the size" if before else ""
    size = f"{before / 1e6:,.1f} MB before, {after / 1e6:,.1f} MB after{ratio}"
    return "\n".join([*lines, f"{len(done):,} of {len(rows):,} videos: {size}", f"data.root={output}"])


def keep_apart(root: Path, output: Path) -> None:
    """Refuse an output that lies where the originals are, or around them; raises `StvideoError`."""
    first, second = root.resolve(), output.resolve()
    if first == second or first in second.parents or second in first.parents:
        raise StvideoError(
            f"output={output} and the originals in {root} lie in one another: name a folder of its own, so that no "
            "original can be overwritten"
        )


def _is_done(row: ResizedRow | None, source: Path, final: Path, recipe: Recipe, retry: bool) -> bool:
    """Whether the same file was encoded in the same way under that name, or failed and need not be tried again."""
    if row is None or (row.bytes_before, row.modified) != file_state(source) or row.recipe != str(recipe):
        return False
    if row.status == "failed":
        return not retry
    return final.as_posix().endswith(f"/{row.target}") and file_state(final)[0] == row.bytes


def _is_ours(row: ResizedRow | None, target: str) -> bool:
    """Whether the file called ``target``, if there is one, was made from that source earlier."""
    return row is not None and row.target == target and row.bytes > 0


def _unfinished(final: Path) -> Path:
    name = os.fsencode(final.name)  # file systems take 255 bytes
    return final.with_name(f".{final.name if len(name) < 250 else hashlib.sha256(name).hexdigest()}.part")
