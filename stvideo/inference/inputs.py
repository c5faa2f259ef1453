"""Collect the videos that a command was given, and name the files that come of them."""

from __future__ import annotations

import glob
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain, count
from pathlib import Path

from stvideo.core.errors import StvideoError
from stvideo.core.messages import logger, print_line
from stvideo.core.out_of_memory import explained
from stvideo.data.lists.disk import video_files
from stvideo.data.video.formats import IMAGE_SUFFIXES
from stvideo.runtime.run_folder import prepare_output
from stvideo.settings.config import Config
from stvideo.settings.memory_advice import for_single_videos

LONGEST_STEM, LONGEST_FOLDER = 140, 60  # bytes of these in an output's name; file systems take names of 255


def collect_videos(arguments: Sequence[str], command: str) -> list[Path]:
    """List the video files that the arguments stand for, in their order, each once.

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
    return list(dict.fromkeys(video for argument in arguments for video in _videos_of(argument)))


def _videos_of(argument: str) -> list[Path]:
    path = Path(argument)
    if argument == "-":
        lines = [os.fsdecode(line).strip() for line in sys.stdin.buffer]  # file names in whatever bytes
        found, missing = [Path(line) for line in lines if line], "standard input: no video path in it"
    elif path.is_dir():
        found, missing = _videos_in(path), f"{path}: no video file in this folder"
    elif glob.has_magic(argument) and not path.exists():
        matches = map(Path, sorted(glob.glob(argument, recursive=True)))  # noqa: PTH207 (takes absolute patterns)
        found = [video for match in matches for video in (_videos_in(match) if match.is_dir() else [match])]
        missing = f"{argument}: no file matches this pattern"
    else:
        return [path]
    if not found:
        raise StvideoError(missing)
    return found


def _videos_in(folder: Path) -> list[Path]:
    """List video files anywhere in a folder, or its images if there are none."""
    return [folder / name for name in list(video_files(folder)) or video_files(folder, IMAGE_SUFFIXES)]


def for_each(videos: Sequence[Path], work: Callable[[Path], None], done: str, config: Config) -> int:
    """Call ``work`` on every video; the error of one is printed and the others go on.

    Args:
        videos: files to work on.
        work: raises `StvideoError` where it fails.
        done: what has happened to the videos that worked, for the summary, e.g. ``"predicted"``.
        config: what ``work`` goes by, to say what to change when memory is full.

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
    """Make the folder of ``output=`` on the command line, if needed.

    Args:
        overrides: the command line's ``key=value``; a configuration's default does not count.
        purpose: what needs the folder, for the message.

    Raises:
        StvideoError: it is not given, or cannot be written to.
    """
    given = [text.removeprefix("output=") for text in overrides if text.startswith("output=")]
    if not given or not given[-1]:
        raise StvideoError(f"output= is missing: {purpose}; name the folder that they go to, e.g. output=results")
    folder = Path(given[-1])
    prepare_output(folder)
    return folder


def output_names(videos: Sequence[Path]) -> dict[Path, str]:
    """Name the outputs of each video: its own name without suffix, with its folder where several are called alike."""
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
    """Cut ``name`` to ``most`` bytes, without bytes that are no characters."""
    return os.fsencode(name)[:most].decode(errors="ignore")
