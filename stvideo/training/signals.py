"""SIGTERM and SIGUSR1 as a wish to stop at the next step, as Slurm and spot machines send before they kill."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType


class StopSignal:
    """``with StopSignal() as stop:`` ... ``if stop.received: ...``; the handlers are put back at the end.

    The exit status that schedulers expect of a process ended by a signal is ``stop.exit_status``, 128 + its number.
    """

    SIGNALS = ("SIGTERM", "SIGUSR1")

    def __init__(self) -> None:
        self.received: int | None = None
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
    def exit_status(self) -> int:
        """143 for SIGTERM, 138 for SIGUSR1 on Linux."""
        return 128 + int(self.received or signal.SIGTERM)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
