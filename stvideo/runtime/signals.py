"""Stop a run at its next step: on SIGTERM and SIGUSR1, which Slurm and spot machines send before they kill, and when
the launcher is gone."""

from __future__ import annotations

import os
import signal
from types import FrameType, TracebackType


class StopSignal:
    """Note the signals that ask a process to stop: ``with StopSignal() as stop:`` ... ``if stop.reason: ...``.

    The former handlers are put back at the end.

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
        """Say why this process should stop; None while it need not."""
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
    """Tell by their variables whether torchrun or ``accelerate launch`` started this process, and waits for its end."""
    return "TORCHELASTIC_RUN_ID" in os.environ or "ACCELERATE_DYNAMO_MODE" in os.environ
