"""The command line that the data tools share: ``key=value`` as in every other command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from stvideo.settings import cli
from stvideo.settings.command_settings import accept_dashes, read_settings

T = TypeVar("T")


def read_command_line(
    schema: type[T], argv: Sequence[str] | None, help_text: str | None
) -> tuple[list[str], T, list[str]]:
    """What a data tool was told.

    ``--key value``, ``--key=value`` and, for switches, ``--key`` are understood too: scripts were written with them.

    Args:
        schema: a dataclass of the tool's settings and their defaults.
        argv: the command line without the program; None for the process's own.
        help_text: printed for ``--help``, after which the process ends with status 0.

    Returns:
        (what stands without a key, the settings, ``key.of.a.configuration=value``).

    Raises:
        StvideoError: an unknown key (the nearest known one is suggested), a wrong type, or a value is missing.
    """
    arguments = accept_dashes(sys.argv[1:] if argv is None else argv, schema)
    arguments = [_as_setting(argument) for argument in arguments]
    positional, overrides = cli.split_arguments(arguments, help_text or "")
    own = [text for text in overrides if "." not in text.partition("=")[0]]
    settings = read_settings(schema, own, "; --help tells more")
    return positional, settings, [text for text in overrides if text not in own]


def _as_setting(argument: str) -> str:
    """An option that is not known, as a key that is not known: then the nearest one is suggested."""
    if not argument.startswith("--") or argument == "--help" or Path(argument).exists():
        return argument
    key, _, value = argument[2:].partition("=")
    return f"{key.replace('-', '_')}={value}"
