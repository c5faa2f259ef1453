"""Decode every video once and write down what it really holds, so that training meets no surprises.

    python data_tools/verify.py /data/k400                                 every video below a folder
    python data_tools/verify.py train.txt val.txt root=/data/k400          the videos that list files name
    python data_tools/verify.py configs/k400_stvit.yaml data.root=/data/k400
                                                                           the videos that a configuration names
    python data_tools/verify.py train.csv validate.csv root=/data/k400     official Kinetics and Something-Something
                                                                           annotations (.csv, .json) work as well

For each file: how many frames can really be decoded, rate, size, duration, codec, rotation, key frame spacing, and
whether decord's random access returns the very frames that decoding from start to end gives. Files are worked on in
processes of their own, so one that hangs or crashes the decoder costs nothing but an entry.

    root=FOLDER        what paths in lists are relative to (default: the folder that holds the list)
    output=FILE        the manifest (default: manifest.csv in the root, where training finds it by itself)
    workers=N          processes (default: one per CPU core)
    timeout=60         seconds that a file may go without a new frame before it counts as hanging
    retry=true         look again at files that an earlier run found unusable or that decord hung on

The manifest is a CSV file with one line per video; it grows while this runs. The same command goes on where an earlier
one stopped, however that happened, and looks again at files that have changed since (by size and time). Status:

    ok         every frame decodes, and random access returns the right ones
    exact      every frame decodes, but decord returns wrong ones, hangs or fails: training reads it with PyAV
    partial    damaged further on: at least half of its frames decode from the start on, and only those are used
    unusable   training leaves it out and says so; evaluation counts it as missing

Exit status: 0 all files are usable, 1 some are not, 2 a mistake (told in one line), 130 interrupted.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from stvideo.core.errors import StvideoError
from stvideo.data.lists.manifest import COLUMNS, FILE_NAME, STATUSES, Entry
from stvideo.preparation.inspection import Job, file_state, inspect, settle
from stvideo.preparation.jobs import Failure, run_jobs
from stvideo.preparation.journal import Journal
from stvideo.preparation.listing import list_videos
from stvideo.preparation.tool_run import Progress, check_workers, table
from stvideo.settings import cli
from stvideo.settings.command_settings import read_command_line

_SHOWN = 12  # lines of a table; the manifest has everything


@dataclass
class Settings:
    """What can be given as ``key=value``."""

    root: str = ""
    output: str = ""
    workers: int = 0
    timeout: float = 60.0
    retry: bool = False


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    sources, settings, overrides = read_command_line(Settings, argv, __doc__)
    if not 0 < settings.timeout < float("inf"):
        raise StvideoError(f"timeout={settings.timeout:g}: expected seconds above 0")
    listing = list_videos(sources, settings.root, overrides)
    output = Path(settings.output).expanduser() if settings.output else listing.root / FILE_NAME
    if output.is_dir():
        raise StvideoError(f"output={output}: this is a folder; name a file, e.g. {output / FILE_NAME}")
    entries = verify(listing.root, listing.paths, output, settings.workers, settings.timeout, settings.retry)
    print(report(entries, output))
    return 1 if any(entry.status == "unusable" for entry in entries) else 0


def verify(
    root: Path, paths: list[str], output: Path, workers: int = 0, timeout: float = 60.0, retry: bool = False
) -> list[Entry]:
    """Look at ``paths`` below ``root`` as far as ``output`` does not know them yet; their entries, in that order.

    Args:
        output: the manifest; what it says about other files stays in it.
        workers: processes; 0 takes one per CPU core.
        timeout: seconds without a new frame before a file counts as hanging.
        retry: look again at files that are unusable or made decord hang or crash.

    Raises:
        StvideoError: the manifest cannot be written or is another kind of file.
    """
    with Journal(output, COLUMNS) as journal:
        todo = [path for path in paths if not _is_known(journal, root, path, retry)]
        known = set(paths) - set(todo)
        bad = sum(_entry(journal, path).status == "unusable" for path in known)
        if known:
            print(f"{output}: {len(known):,} of {len(paths):,} videos are in it already", file=sys.stderr)
        if todo:
            work = run_jobs(
                inspect,
                (Job(str(root), path, timeout) for path in todo),
                workers=check_workers(workers, len(todo)),
                timeout=timeout,
            )
            with Progress(len(todo), "verify", bad) as progress, closing(work):
                for job, outcome in work:
                    entry = settle(job, outcome) if isinstance(outcome, Failure) else outcome
                    journal.add(entry.row())
                    progress.step(entry.status == "unusable")
        journal.finish(paths)
        return [_entry(journal, path) for path in paths]


def _is_known(journal: Journal, root: Path, path: str, retry: bool) -> bool:
    """Whether the file was looked at and is still the same."""
    if journal.get(path) is None:
        return False
    entry = _entry(journal, path)
    if retry and (entry.status == "unusable" or entry.decord in ("hangs", "crashes")):
        return False
    return (entry.bytes, entry.modified) == file_state(root / path)


def _entry(journal: Journal, path: str) -> Entry:
    try:
        return Entry.from_row(journal.get(path) or [])
    except ValueError:
        raise StvideoError(f"{journal.path}: damaged line about {path}; delete it and run again") from None


def report(entries: Sequence[Entry], output: Path) -> str:
    """The summary for people."""
    counts = Counter(entry.status for entry in entries)
    lines = [f"{len(entries):,} videos"]
    lines += table([(counts[status], status, meaning) for status, meaning in STATUSES.items()])
    for status in ("unusable", "partial", "exact"):
        lines += _reasons(status, [entry for entry in entries if entry.status == status])
    readable = [entry for entry in entries if entry.status != "unusable"]
    if readable:
        lines += ["read by", *_most_common(entry.decoder for entry in readable)]
        lines += ["codec and container", *_most_common(f"{e.codec} in {e.container.split(',')[0]}" for e in readable)]
        lines += ["size as displayed", *_most_common(f"{entry.width}x{entry.height}" for entry in readable)]
        turned = sum(entry.rotation != 0 for entry in readable)
        gaps = [entry.key_gap_median for entry in readable]
        lines += table(
            [
                ("frames", _range([entry.frames for entry in readable])),
                ("frames per second", _range([round(entry.fps, 2) for entry in readable])),
                ("seconds", _range([round(entry.duration, 1) for entry in readable])),
                ("frames between key frames", _range(gaps)),
                ("rotated", f"{turned:,}"),
            ],
            indent="",
        )
        if median(gaps) > 3 * 16:
            lines.append("key frames are far apart, which makes random access slow: data_tools/resize.py helps")
    lines.append(f"manifest: {output}")
    return "\n".join(lines)


def _reasons(status: str, entries: Sequence[Entry]) -> list[str]:
    """How often which reason was given, an example beside it. Numbers in reasons are left out to put like with like."""
    if not entries:
        return []
    alike: dict[str, list[Entry]] = {}
    for entry in entries:
        alike.setdefault(re.sub(r"\d+(\.\d+)?", "N", entry.reason), []).append(entry)
    ranked = sorted(alike.values(), key=len, reverse=True)
    rows = [(len(group), group[0].path, group[0].reason) for group in ranked[:_SHOWN]]
    return [f"{status}, with an example for each reason", *table(rows), *_more(len(ranked))]


def _most_common(values: Iterable[str]) -> list[str]:
    ranked = Counter(values).most_common()
    return [*table([(count, value) for value, count in ranked[:_SHOWN]]), *_more(len(ranked))]


def _more(count: int) -> list[str]:
    return [f"  and {count - _SHOWN:,} more"] if count > _SHOWN else []


def _range(values: Sequence[float]) -> str:
    return f"{min(values):,} to {max(values):,}, median {median(values):,}"


if __name__ == "__main__":
    cli.run(main)
