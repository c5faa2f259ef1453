"""Write text on pictures, in the fonts that matplotlib brings along."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import matplotlib
from PIL import ImageDraw, ImageFont

INK = (28, 30, 36)
MUTED = (98, 104, 116)


@cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Load DejaVu Sans in a size in pixels."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def one_line(text: str) -> str:
    """Replace what cannot be printed, such as line ends, by spaces."""
    return "".join(c if c.isprintable() else " " for c in text)


def plain(text: str, most: int) -> str:
    """Prepare ``text`` for matplotlib: one line, no ``$`` mathematics, at most ``most`` characters."""
    text = one_line(text).replace("$", r"\$")
    return text if len(text) <= most else text[: most - 1].rstrip("\\") + "…"


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
    """Write one line of text, cut short with an ellipsis where it is wider than ``width`` pixels."""
    face, shown = font(size, bold), one_line(text)
    while len(shown) > 1 and face.getlength(shown) > width:
        shown = shown.removesuffix("…")[:-1].rstrip() + "…"
    draw.text(position, shown, fill=color, font=face, anchor=anchor)
