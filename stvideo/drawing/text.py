"""Text on pictures, in the fonts that matplotlib brings along."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import matplotlib
from PIL import ImageDraw, ImageFont

INK = (28, 30, 36)
MUTED = (98, 104, 116)


@cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans of a size in pixels."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def shorten(text: str, width: float, with_font: ImageFont.FreeTypeFont) -> str:
    """``text``, or as much of its beginning as fits ``width`` pixels, followed by an ellipsis."""
    text = "".join(c if c.isprintable() else " " for c in text)
    if with_font.getlength(text) <= width:
        return text
    while text and with_font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"


def plain(text: str, most: int) -> str:
    """``text`` for matplotlib: one line, no ``$`` mathematics, at most ``most`` characters."""
    text = "".join(c if c.isprintable() else " " for c in text).replace("$", r"\$")
    return text if len(text) <= most else text[: most - 1].rstrip("\\") + "…"


def wrap(text: str, width: float, with_font: ImageFont.FreeTypeFont, most: int = 2) -> list[str]:
    """``text`` in at most ``most`` lines of ``width`` pixels, broken at spaces; the last one is shortened."""
    lines: list[str] = []
    words = text.split()
    while words and len(lines) < most - 1:
        count = len(words)
        while count > 1 and with_font.getlength(" ".join(words[:count])) > width:
            count -= 1
        lines.append(shorten(" ".join(words[:count]), width, with_font))
        words = words[count:]
    return [*lines, shorten(" ".join(words), width, with_font)] if words else lines


def write(
    draw: ImageDraw.ImageDraw,
    position: tuple[float, float],
    text: str,
    size: int,
    width: float,
    bold: bool = False,
    color: tuple[int, int, int] = INK,
    anchor: str = "la",
) -> None:
    """One line of text that never grows wider than ``width`` pixels."""
    face = font(size, bold)
    draw.text(position, shorten(text, width, face), fill=color, font=face, anchor=anchor)
