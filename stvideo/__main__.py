"""The ``stvideo`` command: every verb of the package under one name.

stvideo predict video.mp4 checkpoint=runs/x        is    python -m stvideo.predict video.mp4 checkpoint=runs/x
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn

from stvideo import __version__
from stvideo.core.errors import StvideoError, nearest
from stvideo.settings import cli

VERBS = {
    "train": "train a model from a configuration file",
    "evaluate": "measure a checkpoint on whole videos",
    "compare": "tell whether one evaluation is better than another",
    "study": "train, evaluate and compare several models over several seeds",
    "predict": "name what happens in videos; timelines, features, cameras",
    "visualize": "draw which parts of the frames a model used",
    "benchmark": "count and time models side by side",
    "convert": "turn a checkpoint of another project into ours",
    "doctor": "tell what is installed, what decodes here, what is missing",
}

EXAMPLES = """\
  stvideo predict video.mp4 checkpoint=runs/k400_stvit
  stvideo visualize clips/ checkpoint=runs/k400_evit output=pictures
  stvideo evaluate configs/ssv2_stvit.yaml checkpoint=runs/x evaluate.views=2x3
  stvideo train configs/k400_stvit.yaml data.root=/data/k400

On several devices, start the same modules with Accelerate:
  accelerate launch -m stvideo.train configs/k400_stvit.yaml

Exit status: 0 done, 1 some of several inputs failed, 2 a mistake (told in one line), 130 interrupted."""


def help_text() -> str:
    """Compose what ``stvideo --help`` prints."""
    width = max(map(len, VERBS))
    lines = [f"  {verb:<{width}}  {purpose}" for verb, purpose in VERBS.items()]
    usage = "usage: stvideo VERB [arguments] [key=value ...]"
    return "\n".join([usage, "", *lines, "", "stvideo VERB --help tells more.", "", EXAMPLES])


def main(argv: Sequence[str] | None = None) -> int:
    """Call the verb with the rest of the command line. Returns its exit status.

    Raises:
        StvideoError: no such verb.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_text())
        return 0 if arguments else cli.EXIT_USER_ERROR
    if arguments[0] in ("-V", "--version"):
        print(f"stvideo {__version__}")
        return 0
    verb, *rest = arguments
    if verb not in VERBS:
        raise StvideoError(
            f"unknown verb {verb!r}{nearest(verb, VERBS)}: choose {', '.join(VERBS)}; stvideo --help tells more"
        )
    status: int | None = importlib.import_module(f"stvideo.{verb}").main(rest)
    return status or 0


def run() -> NoReturn:
    """Entry point of the ``stvideo`` command."""
    cli.run(main)


if __name__ == "__main__":
    run()
