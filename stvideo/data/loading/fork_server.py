"""Start loader workers quickly where they are not forked from the training process itself."""

from __future__ import annotations

import multiprocessing

WORKERS_NEED = ["stvideo.data.loading.loader"]


def start_fork_server() -> None:
    """Let a fork server, where workers come from one, import once what all need, while this process goes on."""
    if multiprocessing.get_start_method() == "forkserver":
        from multiprocessing import forkserver

        multiprocessing.set_forkserver_preload(WORKERS_NEED)
        forkserver.ensure_running()
