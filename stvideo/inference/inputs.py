"""Which videos a command was given: files, folders, patterns, or ``-`` for a list on standard input."""

from __future__ import annotations

import glob
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from io import TextIOWrapper
from itertools import chain, count
from pathlib import Path

from stvideo.core.errors import StvideoError
from stvideo.core.files import exists
from stvideo.core.messages import logger, print_line
from stvideo.core.out_of_memory import explained
from stvideo.data.video.images import IMAGE_SUFFIXES
from stvideo.settings.config import Config
from stvideo.settings.memory_advice import for_single_videos

# fmt: off
VIDEO_SUFFIXES = frozenset([
    ".3gp", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov",
    ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv",
])
# fmt: on
LONGEST_STEM, LONGEST_FOLDER = 140, 60  # bytes of these in an output's name; file systems take names of 255


def collect_videos(arguments: Sequence[str], command: str, stdin: Iterable[str] | None = None) -> list[Path]:
    """The video files that the arguments stand for, in their order, each once.

    A folder stands for the video files anywhere inside it, a pattern (``*``, ``?``, ``**``) for what it matches, ``-``
    for one path per line of standard input. A file is taken whatever its name; whether it exists and is a video shows
    when it is opened, so that one bad file does not stop the others.

    Raises:
        StvideoError: nothing was given, or a folder, pattern or list holds no video.
    """
    if not arguments or "" in arguments:  # an empty one would stand for all of this folder
        raise StvideoError(
            f"no video given; example: python -m stvideo.{command} video.mp4 checkpoint=runs/x"
            " (files, folders, patterns, or - for a list on standard input)"
        )
    found: list[Path] = []
    for argument in arguments:
        path = Path(argument)
        if argument == "-":
            lines = _standard_input() if stdin is None else [line.strip() for line in stdin]
            more = [Path(line) for line in lines if line]
            if not more:
                raise StvideoError("standard input: no video path in it; '-' reads one path per line")
        elif exists(argument) and path.is_dir():
            more = _videos_in(path)
            if not more:
                raise StvideoError(f"{path}: no video file in this folder")
        elif not exists(argument) and glob.has_magic(argument):
            matches = [Path(match) for match in sorted(glob.glob(argument, recursive=True))]  # noqa: PTH207 (takes absolute patterns)
            more = [video for match in matches for video in (_videos_in(match) if match.is_dir() else [match])]
            if not more:
                raise StvideoError(f"{argument}: no file matches this pattern")
        else:
            more = [path]
        found += more
    return list(dict.fromkeys(found))


def _standard_input() -> list[str]:
    """Its lines as names of files, in whatever bytes.

    Names may also be divided by null bytes, as ``find -print0`` does, and then hold line ends.
    """
    content = sys.stdin.buffer.read() if isinstance(sys.stdin, TextIOWrapper) else sys.stdin.read().encode()
    if b"\0" in content:
        return [os.fsdecode(name) for name in content.split(b"\0")]
    return [os.fsdecode(line).strip() for line in content.splitlines()]


def _videos_in(folder: Path) -> list[Path]:
    """Video files anywhere in a folder, or its images if there are none; names that start with a dot are skipped."""
    files = sorted(p for p in folder.rglob("*") if not p.name.startswith(".") and p.is_file())
    videos = [p for p in files if p.suffix.lower() in VIDEO_SUFFIXES]
    return videos or [p for p in files if p.suffix.lower() in IMAGE_SUFFIXES]


def for_each(videos: Sequence[Path], work: Callable[[Path], None], done: str, config: Config) -> int:
    """Call ``work`` on every video; one that fails is told in one line and the others go on.

    Args:
        config: what ``work`` goes by, to say what to change when memory is full.
        done: what has happened to the videos that worked, for the summary, e.g. ``"predicted"``.

    Returns:
        Exit status: 0, or 1 if some of several videos failed.

    Raises:
        StvideoError: of the only video.
    """
    failed = 0
    doing, use = for_single_videos(config)
    for video in videos:
        try:
            with explained(f"{video}: {doing}", use):
                work(video)
        except StvideoError as error:
            if len(videos) == 1:
                raise
            failed += 1
            print_line("error", str(error))
    if failed:
        logger.warning(f"{len(videos) - failed} of {len(videos)} videos {done}, {failed} failed (see above)")
    return 1 if failed else 0


def output_folder(overrides: Sequence[str], purpose: str) -> Path:
    """The folder of ``output=`` on the command line, made if needed.

    Args:
        purpose: what needs it, for the message.

    Raises:
        StvideoError: it is not given, or cannot be written to.
    """
    given = [text.split("=", 1)[1] for text in overrides if text.startswith("output=")]
    if not given or not given[-1]:
        raise StvideoError(f"output= is missing: {purpose}; name the folder that they go to, e.g. output=results")
    folder = Path(given[-1])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise StvideoError(f"output={folder}: cannot write to this folder: {error.strerror or error}") from None
    return folder


def output_names(videos: Sequence[Path]) -> dict[Path, str]:
    """A name for the outputs of each video: its own without suffix, with its folder where several are called alike."""
    alike = Counter(_stem(video).lower() for video in videos)
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for video in videos:
        stem, folder = _stem(video), _shortened(video.absolute().parent.name, LONGEST_FOLDER)
        wanted = [stem] if alike[stem.lower()] == 1 else [f"{folder}_{stem}", f"{folder}_{stem}_{video.suffix[1:]}"]
        numbered = (f"{folder}_{stem}_{number}" for number in count(2))
        names[video] = next(name for name in chain(wanted, numbered) if name.lower() not in taken)
        taken.add(names[video].lower())
    return names


def _stem(video: Path) -> str:
    return _shortened(video.stem, LONGEST_STEM) or "video"


def _shortened(name: str, most: int) -> str:
    """As much of ``name`` as ``most`` bytes hold."""
    return os.fsencode(name)[:most].decode(errors="ignore") if len(os.fsencode(name)) > most else name
