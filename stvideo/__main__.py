"""``python -m stvideo VERB ...`` is the ``stvideo`` command."""

from stvideo.console import run

run()
