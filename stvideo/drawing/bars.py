"""Write probabilities as bars of text."""

from __future__ import annotations

from collections.abc import Sequence

from stvideo.drawing.text import one_line


def text_bars(predictions: Sequence[tuple[str, float]], width: int = 24, encoding: str | None = "utf-8") -> list[str]:
    """Write one line per class: name, bar, per cent. Plain ``#`` where ``encoding`` has no block characters.

    Args:
        predictions: class names with probabilities.
        width: characters of a full bar.
        encoding: of the terminal; None: ASCII.
    """
    block = "█"
    try:
        block.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        block = "#"
    names = [one_line(name)[:48] for name, _ in predictions]
    longest = max(map(len, names), default=0)
    return [
        f"{name:<{longest}}  {block * round(width * min(max(share, 0.0), 1.0)):<{width}}  {100 * share:5.1f} %"
        for name, (_, share) in zip(names, predictions, strict=True)
    ]
