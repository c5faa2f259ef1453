"""Probabilities as bars of text."""

from __future__ import annotations

from collections.abc import Sequence

from stvideo.drawing.text import one_line

BLOCKS = " ▏▎▍▌▋▊▉█"


def text_bars(predictions: Sequence[tuple[str, float]], width: int = 24, encoding: str | None = "utf-8") -> list[str]:
    """Write one line per class: name, bar, per cent. Plain ``#`` where ``encoding`` has no block characters.

    Args:
        predictions: class names with probabilities.
        width: characters of a full bar.
        encoding: of the terminal; None: ASCII.
    """
    try:
        BLOCKS.encode(encoding or "ascii")
        eighths = 8
    except (UnicodeEncodeError, LookupError):
        eighths = 1
    names = [one_line(name)[:48] for name, _ in predictions]
    longest = max(map(len, names), default=0)
    lines = []
    for name, (_, probability) in zip(names, predictions, strict=True):
        full, rest = divmod(round(min(max(probability, 0.0), 1.0) * width * eighths), eighths)
        bar = ("█" if eighths == 8 else "#") * full + BLOCKS[rest].strip()
        lines.append(f"{name:<{longest}}  {bar:<{width}}  {100 * probability:5.1f} %")
    return lines
