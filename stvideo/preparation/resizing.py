"""Encode the videos of a data set anew, small and quick to read; see data_tools/resize.py."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stvideo.core.errors import StvideoError
from stvideo.data.lists.manifest import CsvRow
from stvideo.preparation.inspection import file_state
from stvideo.preparation.jobs import count_workers, run_jobs
from stvideo.preparation.table import Table
from stvideo.preparation.terminal import aligned
from stvideo.preparation.transcode import Encoding, Recipe, Transcoded, encoder_problem, transcode

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

    def is_done(row: ResizedRow) -> bool:
        """Tell whether this file was encoded in the same way before, or failed and need not be tried again."""
        same = (row.bytes_before, row.modified) == file_state(root / row.path) and row.recipe == str(recipe)
        if row.status == "failed":
            return same and not retry
        final = output / targets[row.path]
        return same and row.target == targets[row.path] and file_state(final)[0] == row.bytes

    with Table(output / FILE_NAME, ResizedRow) as table:

        def is_ours(path: str) -> bool:
            """Tell whether an existing file of its name was made from it earlier."""
            row = table.rows.get(path)
            return row is not None and row.target == targets[path] and row.bytes > 0

        def encode_all(paths: list[str]) -> Iterator[ResizedRow]:
            fresh: dict[str, ResizedRow] = {}  # by the name of the unfinished file
            for path in paths:
                size, modified = file_state(root / path)
                row = ResizedRow(path, targets[path], "failed", "", 0, 0, 0, size, 0, modified, str(recipe))
                final = output / targets[path]
                if (final.exists() or final.is_symlink()) and not is_ours(path):
                    reason = f"{final} is there already and was not made from it: delete it or name another output"
                    yield replace(row, reason=reason)
                else:
                    fresh[str(_unfinished(final))] = row
            jobs = (Encoding(str(root / row.path), unfinished, recipe) for unfinished, row in fresh.items())
            processes = count_workers(workers, len(fresh))
            for job, new in run_jobs(transcode, jobs, workers=processes, timeout=timeout) if fresh else ():
                row, unfinished, final = fresh[job.target], Path(job.target), output / fresh[job.target].target
                if isinstance(new, Transcoded):
                    # First the line, then the name: a file with a name and without a line is somebody else's.
                    status = "shortened" if new.note else "done"
                    row = replace(row, status=status, reason=new.note, frames=new.frames, bytes=new.bytes)
                    yield replace(row, width=new.width, height=new.height)
                    unfinished.replace(final)
                    continue
                unfinished.unlink(missing_ok=True)
                if new.kind == "full":
                    raise StvideoError(f"{final}: cannot be written ({new.reason}); the same command goes on later")
                if is_ours(row.path):
                    final.unlink(missing_ok=True)  # made from what the source was earlier
                yield replace(row, reason=new.reason)

        problem = encoder_problem()
        if problem:
            raise StvideoError(problem)
        return table.complete("resize", list(targets), is_done, lambda row: row.status == "failed", encode_all)


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
    """Refuse an output inside the originals' folder, or around it; raises `StvideoError`."""
    first, second = root.resolve(), output.resolve()
    if first == second or first in second.parents or second in first.parents:
        raise StvideoError(
            f"output={output} and the originals in {root} lie in one another: name a folder of its own, so that no "
            "original can be overwritten"
        )


def _unfinished(final: Path) -> Path:
    name = os.fsencode(final.name)  # file systems take 255 bytes
    return final.with_name(f".{final.name if len(name) < 250 else hashlib.sha256(name).hexdigest()}.part")
