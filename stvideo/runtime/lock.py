"""One run per folder: the first process holds an advisory lock on ``RUN/.lock`` for as long as it lives."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from stvideo.runtime.processes import refuse_together

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PATIENCE = 5.0  # seconds: a process that was killed takes a moment to go


class RunLock:
    """``with RunLock(folder, accelerator): ...``; the other processes of the run learn what the first one found.

    The lock belongs to the process (``lockf``) and not to the open file (``flock``), so data workers, which are copies
    of the process, do not keep it when the process is killed. File systems without locks are taken as they are.

    Raises:
        StvideoError: another run writes into the folder; on all processes alike.
    """

    def __init__(self, folder: Path, accelerator: Accelerator, patience: float = PATIENCE) -> None:
        self.folder, self.accelerator, self.patience = folder, accelerator, patience
        self._file: BinaryIO | None = None

    def __enter__(self) -> RunLock:
        problem = [self._take() if self.accelerator.is_main_process else None]
        if self.accelerator.num_processes > 1:
            broadcast_object_list(problem)
        if problem[0] is not None:
            refuse_together(problem[0])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is None:
            return
        with contextlib.suppress(OSError):
            self._file.truncate(0)
        self._file.close()
        self._file = None

    def _take(self) -> str | None:
        """Lock the folder; returns a sentence if somebody else has."""
        if fcntl is None:
            return None
        path = self.folder / ".lock"
        try:
            file = path.open("a+b", buffering=0)  # closing must not write what a full disk refused
        except OSError as error:
            return f"{path}: cannot be written ({error.strerror}); choose another folder with output=FOLDER"
        until = time.monotonic() + self.patience
        while True:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EAGAIN):  # a file system without locks
                    break
            if time.monotonic() > until:
                file.seek(0)
                holder = " ".join(file.read(200).decode(errors="replace").split())
                file.close()
                return (
                    f"{self.folder}: another run is writing there{f' ({holder})' if holder else ''}; wait for it, end "
                    "it, or choose another folder with output=FOLDER"
                )
            time.sleep(0.1)
        with contextlib.suppress(OSError):  # the disk may be full; the lock holds without
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        self._file = file
        return None
