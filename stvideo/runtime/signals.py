"""Wishes to stop at the next step: SIGTERM and SIGUSR1, as Slurm and spot machines send before they kill, and a
launcher that is gone."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import FrameType, TracebackType


class StopSignal:
    """``with StopSignal() as stop:`` ... ``if stop.reason: ...``; the handlers are put back at the end.

    The exit status that schedulers expect of a process ended by a signal is ``stop.exit_status``, 128 + its number.

    A launcher (torchrun, ``accelerate launch``) that is killed outright leaves its processes behind, which would train
    on beside the run that is started next. A run without a launcher goes on when the shell that started it ends.
    """

    SIGNALS = ("SIGTERM", "SIGUSR1")

    def __init__(self) -> None:
        self.received: int | None = None
        self._launcher = os.getppid() if started_by_launcher() else None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> StopSignal:
        for name in self.SIGNALS:
            number = getattr(signal, name, None)  # Windows has no SIGUSR1
            if number is not None:
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @property
    def reason(self) -> str | None:
        """Why this process should stop, in words; None while it need not."""
        if self.received is not None:
            return "by a signal"
        if self._launcher is not None and os.getppid() != self._launcher:
            return "because the launcher has gone"
        return None

    @property
    def exit_status(self) -> int:
        """143 for SIGTERM, 138 for SIGUSR1 on Linux."""
        return 128 + int(self.received or signal.SIGTERM)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number


def started_by_launcher() -> bool:
    """Whether the parent of this process is a launcher, which stays until the processes that it started have ended."""
    if "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun, and `accelerate launch` of several processes
        return True
    try:
        command = Path(f"/proc/{os.getppid()}/cmdline").read_bytes().decode().split("\0")
    except (OSError, UnicodeDecodeError):
        return False
    script, *arguments = [word for word in command[1:4] if word != "-m"] or [""]
    name = Path(script).name
    return name in ("accelerate.commands.launch", "accelerate-launch") or (
        name == "accelerate" and arguments[:1] == ["launch"]
    )
