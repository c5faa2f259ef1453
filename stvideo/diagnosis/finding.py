"""What a probe found."""

from __future__ import annotations

from dataclasses import dataclass

OK, LESS, BROKEN = "green", "yellow", "red"
"""All is well; works, but something is missing or slower; something that is needed is broken."""


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report.

    Attributes:
        group: heading under which it stands.
        name: what was looked at.
        level: green, yellow or red.
        text: what was found.
        advice: what to do about it; empty where all is well.
    """

    group: str
    name: str
    level: str
    text: str
    advice: str = ""
