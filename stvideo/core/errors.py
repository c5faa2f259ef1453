"""The one exception that a user can cause."""

from collections.abc import Iterable
from difflib import get_close_matches


class StvideoError(ValueError):
    """A mistake in the input: one line that says what is wrong, where, and what to do about it.

    Commands print the message and exit with status 2; library users catch a ``ValueError``.
    """


def nearest(wrong: str, choices: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the closest of ``choices``, or an empty string."""
    close = get_close_matches(wrong, list(choices), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""
