"""Modules outside of the package that register reductions and models: ``plugins: [MODULE, ...]``.

Only what the configuration file or the command line names is imported. A checkpoint remembers its plugins, but a file
must not choose which code runs: using it without them is an error that names them.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stvideo.core.errors import StvideoError


def import_plugins(names: Sequence[str]) -> None:
    """Import each module, from the current folder or from what is installed.

    Raises:
        StvideoError: a module that is not found, or that fails.
    """
    here = str(Path.cwd())
    if names and not {here, ""} & set(sys.path):
        sys.path.append(here)
    for name in names:
        if not re.fullmatch(r"\w+(\.\w+)*", name) or name.endswith(".py"):
            raise StvideoError(f"plugins: {name!r} is not a module's name; my_methods stands for my_methods.py")
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as error:
            if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
                reason = "no such module in the current folder or installed"
            else:
                reason = f"cannot be imported: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            raise StvideoError(f"plugins: {name}: {reason}") from None


def take_plugins(overrides: Sequence[str]) -> list[str]:
    """Import the modules of ``plugins=[MODULE, ...]`` and return the other overrides, for commands without a `Config`.

    Raises:
        StvideoError: as `import_plugins`.
    """
    given = [text for text in overrides if text.startswith("plugins=")]
    import_plugins([name for text in given for name in re.findall(r"[^\[\],\s]+", text.partition("=")[2])])
    return [text for text in overrides if text not in given]


@contextmanager
def plugins_named(metadata: Mapping[str, Any]) -> Iterator[None]:
    """Add to an error inside which plugins the checkpoint of ``metadata`` was made with, if some are not imported."""
    try:
        yield
    except StvideoError as error:
        config = metadata.get("config")
        names = config.get("plugins") if isinstance(config, Mapping) else None
        missing = [str(name) for name in names if name not in sys.modules] if isinstance(names, list) else []
        if not missing:
            raise
        given = ",".join(missing)
        raise StvideoError(f"{error}; the checkpoint was made with plugins, give plugins=[{given}]") from None
