"""``python -m stvideo.study``."""

from stvideo.settings import cli
from stvideo.study import main

cli.run(main)
