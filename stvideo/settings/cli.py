"""The command line that every command shares: ``key=value``, help, and errors as one line.

A command is a module with ``main(argv) -> int`` that ends in::

    if __name__ == "__main__":
        cli.run(main)
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from typing import NoReturn, TypeVar, get_type_hints

from stvideo.core.errors import StvideoError, nearest
from stvideo.core.files import exists
from stvideo.core.interrupts import catch_no_more
from stvideo.core.messages import print_line, show_warnings
from stvideo.core.out_of_memory import is_out_of_memory
from stvideo.settings.config import read_settings
from stvideo.settings.plugins import take_plugins

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
SMALLER = "use a smaller model, batch or clip, or a machine with more memory"

T = TypeVar("T")
_OVERRIDE = re.compile(r"^[A-Za-z_][\w.]*=")


def run(main: Callable[[list[str]], int | None], argv: Sequence[str] | None = None) -> NoReturn:
    """Call ``main`` with the command line and leave the process with its exit status.

    A `StvideoError` becomes one line on stderr and exit status 2, and so does memory that does not suffice; Ctrl-C
    leaves with 130.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a name that the terminal cannot show must not end the command
            stream.reconfigure(errors="backslashreplace")
    show_warnings()
    try:
        catch_no_more()
        status = main(list(sys.argv[1:] if argv is None else argv)) or 0
        sys.stdout.flush()
    except StvideoError as error:
        print_line("error", str(error))
        status = EXIT_USER_ERROR
    except KeyboardInterrupt as error:
        print_line("error", ": ".join(["interrupted", *map(str, error.args)]))
        status = EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123
        status = 0
    except (RuntimeError, MemoryError, OSError) as error:
        if is_out_of_memory(error):
            reason = str(error).split(". ")[0][:160] or type(error).__name__
            print_line("error", f"memory is full ({reason}); {SMALLER}")
        elif isinstance(error, OSError) and error.filename is not None:  # what a path or a disk may do to any command
            print_line("error", f"{os.fsdecode(error.filename)[:200]}: {error.strerror}")
        else:
            raise
        status = EXIT_USER_ERROR
    sys.exit(status)


def split_arguments(
    argv: Sequence[str] | None, help_text: str = "", flags: Sequence[str] = ()
) -> tuple[list[str], list[str]]:
    """Separate ``key=value`` overrides from everything else.

    Args:
        argv: the command line without the program; None for the process's own.
        help_text: printed for ``-h`` or ``--help``, after which the process ends with status 0.
        flags: options such as ``--json`` that the command knows; they stay among the positionals.

    Returns:
        (positional, overrides). An argument that names an existing file is positional even if it holds a ``=`` or
        starts with ``--``.

    Raises:
        StvideoError: an unknown option.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if "-h" in arguments or "--help" in arguments:
        print(help_text.strip())
        raise SystemExit(0)
    positional: list[str] = []
    overrides: list[str] = []
    for argument in arguments:
        is_file = exists(argument)
        if argument.startswith("--") and argument not in flags and not is_file:
            raise StvideoError(
                f"the command line: unknown option {argument!r}{nearest(argument, flags)}; settings are written "
                f"key=value, known options: {', '.join([*flags, '--help'])}"
            )
        is_override = _OVERRIDE.match(argument) and not is_file
        (overrides if is_override else positional).append(argument)
    return positional, overrides


def read_command_line(
    schema: type[T], argv: Sequence[str] | None, help_text: str | None = "", hint: str = "; --help tells more"
) -> tuple[list[str], T, list[str]]:
    """Read the command line of a command whose settings are the fields of a dataclass.

    A field of type bool may also be switched on as an option: ``--optimize`` is ``optimize=true``. ``plugins=`` is
    understood by every command.

    Args:
        schema: a dataclass of the settings and their defaults.
        argv: the command line without the program; None for the process's own.
        help_text: printed for ``--help``, after which the process ends with status 0.
        hint: ends the message about an unknown key.

    Returns:
        (what stands without a key, the settings, ``key.of.a.configuration=value``).

    Raises:
        StvideoError: an unknown key or option (the nearest known one is suggested), or a wrong type.
    """
    types = get_type_hints(schema)
    switches = {f"--{name.replace('_', '-')}": f"{name}=true" for name in types if types[name] is bool}
    positional, given = split_arguments(argv, help_text or "", tuple(switches))
    overrides = take_plugins(given)
    own = [text for text in overrides if "." not in text.partition("=")[0]]
    settings = read_settings(schema, own + [switches[text] for text in positional if text in switches], hint)
    return (
        [text for text in positional if text not in switches],
        settings,
        [text for text in overrides if text not in own],
    )


def one_config(positional: Sequence[str], command: str) -> str:
    """Return the single configuration file that ``command`` was given.

    Raises:
        StvideoError: none, or more than one.
    """
    if len(positional) != 1:
        given = f"got {len(positional)}: {' '.join(positional)}" if positional else "got none"
        raise StvideoError(
            f"python -m stvideo.{command} takes one configuration file, {given}; "
            f"example: python -m stvideo.{command} configs/demo.yaml train.epochs=1"
        )
    return positional[0]
