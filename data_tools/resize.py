"""Make every video small and quick to read from anywhere. The originals are not touched.

    python data_tools/resize.py /data/k400 output=/data/k400_320                       every video below a folder
    python data_tools/resize.py train.txt val.txt root=/data/ssv2 output=/data/small   the videos that lists name
    python data_tools/resize.py configs/k400_stvit.yaml data.root=/data/k400 output=/data/small short_side=256

Writes OUTPUT/any/where/NAME.mp4 for every any/where/NAME.webm (.mp4, .avi, ...) below the root: H.264 without sound, in
the original frame rate with the original time stamps (a varying rate stays one), turned as it is to be shown, even
sizes, never larger than it was. Lists named on the command line or by the configuration are written to OUTPUT with the
new names; official .csv and .json annotations and class names are copied. So data.root=OUTPUT is all that changes.

    root=FOLDER        what paths in lists are relative to (default: the folder that holds the list)
    output=FOLDER      where the small videos go; must not overlap with the root
    short_side=320     pixels of the shorter side; 256 is common too. Smaller videos keep their size
    keyframes=8        frames from one key frame to the next
    crf=22             x264's constant rate factor: 18 looks like the original, 28 is half the size
    workers=N          processes (default: one per CPU core)
    timeout=60         seconds that a file may go without a new frame before it counts as hanging
    retry=true         try files again that failed in an earlier run

Why key frames so close: reading 8 frames spread over a video means to decode, for each, everything since the key frame
before it: 4 or 5 frames on average at keyframes=8, over 100 at the 250 that encoders choose by themselves. On 340x256
clips keyframes=16 is about a tenth smaller and takes a third longer to read, keyframes=4 is the other way round. For
the same reason there are no B-frames, and groups of pictures are closed: then every decoder returns the right frames.

A file appears under its name only when it is whole. OUTPUT/resized.csv says what was done; the same command goes on
where an earlier one stopped, encodes anew what has changed since or was asked for with other settings, and skips the
rest. A damaged video of which at least half decodes is kept up to the damage; of the others nothing is written. They
stay in the lists: run data_tools/verify.py on those, so that training leaves them out and evaluation counts them.

Exit status: 0 all videos are done, 1 some failed, 2 a mistake (told in one line), 130 interrupted.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from stvideo.core.errors import StvideoError
from stvideo.preparation.inspection import file_state
from stvideo.preparation.jobs import Failure, run_jobs
from stvideo.preparation.journal import Journal
from stvideo.preparation.listing import list_videos, write_annotations
from stvideo.preparation.tool_run import Progress, check_workers, table
from stvideo.preparation.transcode import Job, Recipe, Transcoded, encoder_problem, transcode
from stvideo.settings import cli
from stvideo.settings.command_settings import read_command_line

JOURNAL = "resized.csv"
_SHOWN = 20  # failed files that are printed; the journal has all


@dataclass
class Settings:
    """What can be given as ``key=value``."""

    root: str = ""
    output: str = ""
    short_side: int = 320
    keyframes: int = 8
    crf: float = 22.0
    workers: int = 0
    timeout: float = 60.0
    retry: bool = False


@dataclass(frozen=True)
class Row:
    """A line of the journal. ``status``: done | shortened (kept up to a damage) | failed."""

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


COLUMNS = tuple(Row.__dataclass_fields__)


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    sources, settings, overrides = read_command_line(Settings, argv, __doc__)
    _check(settings)
    listing = list_videos(sources, settings.root, overrides)
    output = Path(settings.output).expanduser()
    _keep_apart(listing.root, output)
    targets = target_names(listing.paths)
    write_annotations(listing, output, targets)
    recipe = Recipe(settings.short_side, settings.keyframes, settings.crf)
    rows = resize(listing.root, targets, output, recipe, settings.workers, settings.timeout, settings.retry)
    print(report(rows, output))
    return 1 if any(row.status == "failed" for row in rows) else 0


def resize(
    root: Path,
    targets: dict[str, str],
    output: Path,
    recipe: Recipe,
    workers: int = 0,
    timeout: float = 60.0,
    retry: bool = False,
) -> list[Row]:
    """Encode ``root / path`` as ``output / target`` for every (path, target), as far as that is not done yet.

    Returns:
        What the journal says about them, in the same order.

    Raises:
        StvideoError: the output cannot be written or lies where the originals are, or there is no encoder.
    """
    _keep_apart(root, output)
    with Journal(output / JOURNAL, COLUMNS) as journal:
        todo = [
            path
            for path, target in targets.items()
            if not _is_done(journal, root / path, output / target, recipe, path, retry)
        ]
        known = [_row(journal, path) for path in targets.keys() - set(todo)]
        if known:
            print(f"{output}: {len(known):,} of {len(targets):,} videos are done already", file=sys.stderr)
        if todo:
            bad = sum(row.status == "failed" for row in known)
            _encode(journal, root, {path: targets[path] for path in todo}, output, recipe, workers, timeout, bad)
        journal.finish(targets)
        return [_row(journal, path) for path in targets]


def _encode(
    journal: Journal, root: Path, targets: dict[str, str], output: Path, recipe: Recipe, workers: int, timeout: float,
    bad: int,
) -> None:  # fmt: skip
    problem = encoder_problem()
    if problem:
        raise StvideoError(problem)
    before = {path: file_state(root / path) for path in targets}

    def jobs() -> Iterator[Job]:
        for path, target in targets.items():
            final = output / target
            if (final.exists() or final.is_symlink()) and not _is_ours(journal, path, target):
                reason = f"{final} is there already and was not made from it: delete it or name another output"
                journal.add(_failed(path, target, reason, before[path], recipe))
                progress.step(True)
            else:
                yield Job(str(root / path), str(_unfinished(output / target)), recipe)

    path_of = {str(_unfinished(output / target)): path for path, target in targets.items()}
    work = run_jobs(transcode, jobs(), workers=check_workers(workers, len(targets)), timeout=timeout)
    with Progress(len(targets), "resize", bad) as progress, closing(work):
        for job, outcome in work:
            path = path_of[job.target]
            unfinished, final = Path(job.target), output / targets[path]
            if isinstance(outcome, Failure):
                unfinished.unlink(missing_ok=True)
                if outcome.kind == "full":
                    raise StvideoError(f"{final}: cannot be written ({outcome.reason}); the same command goes on later")
                if _is_ours(journal, path, targets[path]):
                    final.unlink(missing_ok=True)  # made from what the source was earlier
                journal.add(_failed(path, targets[path], outcome.reason, before[path], recipe))
            else:
                # First the line, then the name: a file with a name and without a line is somebody else's.
                journal.add(_done(path, targets[path], outcome, before[path], recipe))
                unfinished.replace(final)
            progress.step(isinstance(outcome, Failure))


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


def report(rows: Sequence[Row], output: Path) -> str:
    """The summary for people."""
    done = [row for row in rows if row.status != "failed"]
    failed = [row for row in rows if row.status == "failed"]
    shortened = [row for row in rows if row.status == "shortened"]
    lines = []
    for what, group in (("kept up to a damage", shortened), ("failed, nothing written", failed)):
        if group:
            lines.append(f"{what}: {len(group):,} videos")
            lines += table([(row.path, row.reason) for row in group[:_SHOWN]])
            if len(group) > _SHOWN:
                lines.append(f"  and {len(group) - _SHOWN:,} more in {output / JOURNAL}")
    before, after = sum(row.bytes_before for row in done), sum(row.bytes for row in done)
    ratio = f", {after / before:.2f} times the size" if before else ""
    lines.append(f"{len(done):,} of {len(rows):,} videos: {_size(before)} before, {_size(after)} after{ratio}")
    lines.append(f"data.root={output}")
    return "\n".join(lines)


def _check(settings: Settings) -> None:
    if not settings.output:
        raise StvideoError("output=FOLDER is missing: where the small videos go; --help tells more")
    if settings.short_side < 16 or settings.short_side % 2:
        raise StvideoError(f"short_side={settings.short_side}: expected an even number of pixels, at least 16")
    if not 1 <= settings.keyframes <= 1000:
        raise StvideoError(f"keyframes={settings.keyframes}: expected 1 (key frames only) to 1000 frames")
    if not 0 <= settings.crf <= 51:
        raise StvideoError(f"crf={settings.crf:g}: expected 0 (lossless) to 51 (worst)")
    if not 0 < settings.timeout < float("inf"):
        raise StvideoError(f"timeout={settings.timeout:g}: expected seconds above 0")


def _keep_apart(root: Path, output: Path) -> None:
    first, second = root.resolve(), output.resolve()
    if first == second or first in second.parents or second in first.parents:
        raise StvideoError(
            f"output={output} and the originals in {root} lie in one another: name a folder of its own, so that no "
            "original can be overwritten"
        )


def _is_done(journal: Journal, source: Path, final: Path, recipe: Recipe, path: str, retry: bool) -> bool:
    """Whether the same file was encoded in the same way under that name, or failed and need not be tried again."""
    if journal.get(path) is None:
        return False
    row = _row(journal, path)
    if (row.bytes_before, row.modified) != file_state(source) or row.recipe != str(recipe):
        return False
    if row.status == "failed":
        return not retry
    return final.as_posix().endswith(f"/{row.target}") and file_state(final)[0] == row.bytes


def _is_ours(journal: Journal, path: str, target: str) -> bool:
    """Whether the file called ``target``, if there is one, was made from ``path`` earlier."""
    return journal.get(path) is not None and _row(journal, path).target == target and _row(journal, path).bytes > 0


def _unfinished(final: Path) -> Path:
    name = os.fsencode(final.name)  # file systems take 255 bytes
    return final.with_name(f".{final.name if len(name) < 250 else hashlib.sha256(name).hexdigest()}.part")


def _row(journal: Journal, path: str) -> Row:
    try:
        path, target, status, reason, *numbers, recipe = journal.get(path) or []
        frames, width, height, before, after, modified = map(int, numbers)
        return Row(path, target, status, reason, frames, width, height, before, after, modified, recipe)
    except ValueError:
        raise StvideoError(f"{journal.path}: damaged line about {path}; delete it and run again") from None


def _failed(path: str, target: str, reason: str, before: tuple[int, int], recipe: Recipe) -> list[object]:
    return [path, target, "failed", reason, 0, 0, 0, before[0], 0, before[1], str(recipe)]


def _done(path: str, target: str, new: Transcoded, before: tuple[int, int], recipe: Recipe) -> list[object]:
    status = "shortened" if new.note else "done"
    size = (new.frames, new.width, new.height, before[0], new.bytes, before[1])
    return [path, target, status, new.note, *size, str(recipe)]


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


if __name__ == "__main__":
    cli.run(main)
