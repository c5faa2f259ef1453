"""Probabilities as bars of text."""

from __future__ import annotations

from collections.abc import Sequence

BLOCKS = " ▏▎▍▌▋▊▉█"


def text_bars(predictions: Sequence[tuple[str, float]], width: int = 24, encoding: str | None = "utf-8") -> list[str]:
    """One line per class: name, bar, per cent. Plain ``#`` where ``encoding`` has no block characters.

    Args:
        predictions: class names with probabilities.
        width: characters of a full bar.
    """
    names = [_one_line(name)[:48] for name, _ in predictions]
    longest = max((len(name) for name in names), default=0)
    return [
        f"{name:<{longest}}  {_bar(probability, width, encoding)}  {100 * probability:5.1f} %"
        for name, (_, probability) in zip(names, predictions, strict=True)
    ]


def _bar(share: float, width: int, encoding: str | None) -> str:
    share = min(max(share, 0.0), 1.0)
    try:
        BLOCKS.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return f"{'#' * round(share * width):<{width}}"
    eighths = round(share * width * 8)
    full, rest = divmod(eighths, 8)
    return f"{BLOCKS[8] * full + (BLOCKS[rest] if rest else ''):<{width}}"


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)
