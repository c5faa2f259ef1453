"""Decode every video once and write down what it really holds, in a manifest; see data_tools/verify.py."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from stvideo.data.lists.manifest import STATUSES, VideoRow
from stvideo.preparation.inspection import Inspection, file_state, inspect, not_by_decord
from stvideo.preparation.jobs import Failure, count_workers, run_jobs
from stvideo.preparation.table import Table
from stvideo.preparation.terminal import aligned

_SHOWN = 12  # lines of a table; the manifest has everything
_FAR_APART = 48  # frames from one key frame to the next above which resizing is advised


def verify(
    root: Path, paths: list[str], output: Path, workers: int = 0, timeout: float = 60.0, retry: bool = False
) -> list[VideoRow]:
    """Look at ``paths`` below ``root`` as far as ``output`` does not know them yet; returns their rows, in that order.

    Args:
        output: the manifest; what it says about other files stays in it.
        workers: processes; 0 takes one per CPU core.
        timeout: seconds without a new frame before a file counts as hanging.
        retry: look again at files that are unusable or made decord hang or crash.

    Raises:
        StvideoError: the manifest cannot be written or is another kind of file.
    """

    def is_known(row: VideoRow) -> bool:
        if retry and (row.status == "unusable" or row.decord in ("hangs", "crashes")):
            return False
        return (row.bytes, row.modified) == file_state(root / row.path)

    def inspect_all(paths: list[str]) -> Iterator[VideoRow]:
        processes = count_workers(workers, len(paths))
        failed: dict[str, Failure] = {}
        for job, outcome in run_jobs(
            inspect, (Inspection(str(root), path) for path in paths), workers=processes, timeout=timeout
        ):
            if isinstance(outcome, Failure):
                failed[job.path] = outcome
            else:
                yield outcome
        again = (Inspection(str(root), path, by_decord=False) for path in failed)
        for job, outcome in run_jobs(inspect, again, workers=processes, timeout=timeout) if failed else ():
            yield settle(root, job.path, failed[job.path], outcome)

    with Table(output, VideoRow) as table:
        return table.complete("verify", paths, is_known, lambda row: row.status == "unusable", inspect_all)


def settle(root: Path, path: str, first: Failure, second: VideoRow | Failure) -> VideoRow:
    """Describe a file whose inspection hung or crashed, by how it went a second time, without decord."""
    if isinstance(second, Failure):
        size, modified = file_state(root / path)
        reason = f"decoding hangs: {second.reason}" if second.kind == "timeout" else second.reason
        return VideoRow(path, "unusable", reason=reason, bytes=size, modified=modified)
    if second.status == "unusable" or second.decord == "absent":
        return second
    verdict = {"timeout": "hangs", "crash": "crashes"}.get(first.kind, "fails")
    return not_by_decord(second, verdict, f"decord {verdict}")


def report(rows: Sequence[VideoRow], output: Path) -> str:
    """Summarise for people."""
    counts = Counter(row.status for row in rows)
    lines = [f"{len(rows):,} videos"]
    lines += aligned([(counts[status], status, meaning) for status, meaning in STATUSES.items()])
    for status in ("unusable", "partial", "sequential", "exact", "ok"):
        # Numbers in reasons are left out to put like with like.
        alike: dict[str, list[VideoRow]] = {}
        for row in rows:
            if row.status == status and row.reason:
                alike.setdefault(re.sub(r"\d+(\.\d+)?", "N", row.reason), []).append(row)
        ranked = sorted(alike.values(), key=len, reverse=True)
        lines += [f"{status}, with an example for each reason"] if alike else []
        lines += aligned([(len(group), group[0].path, group[0].reason) for group in ranked], most=_SHOWN)
    readable = [row for row in rows if row.status != "unusable"]
    for title, values in (
        ("read by", (row.decoder for row in readable)),
        ("codec and container", (f"{row.codec} in {row.container.split(',')[0]}" for row in readable)),
        ("size as displayed", (f"{row.width}x{row.height}" for row in readable)),
        ("frames per second", (f"{row.fps:.4g}" for row in readable)),
    ):
        lines += [title, *aligned([(n, value) for value, n in Counter(values).most_common()], most=_SHOWN)]
    if readable and median(row.key_gap_median for row in readable) > _FAR_APART:
        lines.append("key frames are far apart, which makes random access slow: data_tools/resize.py helps")
    return "\n".join([*lines, f"manifest: {output}"])
