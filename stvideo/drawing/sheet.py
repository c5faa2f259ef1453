"""The sheet: sampled frames across, reduction layers down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from stvideo.core.files import replacing
from stvideo.drawing.geometry import Crop, fit
from stvideo.drawing.overlay import DROPPED_LIGHT, FUSED_STRENGTH, OUTSIDE_GRAY, paint
from stvideo.drawing.states import DROPPED, FUSED, FUSED_COLOR, KEPT, SHARED, LayerStates
from stvideo.drawing.text import INK, MUTED, font, write

MARGIN, GAP = 28, 8
LABEL_WIDTH, LABEL_SIZE = 176, 13
LINE_HEIGHT, ROW_LINES = 21, 4  # of what stands beside a row
CELL_WIDTH, CELL_HEIGHT = 216, 240  # frames are scaled into this box
FEW_COLUMNS, FEW_LARGER = 3, 1.6  # up to so many frames are drawn larger by this factor
PREDICTION_WIDTH, PREDICTION_HEIGHT = 400, 22
BAR_COLOR, BAR_GROUND = (64, 120, 220), (229, 232, 238)
PAPER = (255, 255, 255)
LEGEND_LINE, SWATCH = 24, 17

Prediction = tuple[str, float]
"""Class name and probability."""


@dataclass(frozen=True)
class Sheet:
    """A finished sheet.

    Attributes:
        image: (height, width, 3) uint8 RGB.
        columns: for each column, the frame of the clip that it shows.
        rows: for each row below the input frames, the layer that it shows.
        cells: (left, top, width, height) of the picture in each [row][column]; row 0 holds the input frames.
    """

    image: NDArray[np.uint8]
    columns: list[int]
    rows: list[int | str]
    cells: list[list[tuple[int, int, int, int]]]

    def save(self, path: Path) -> None:
        """Write a PNG, to a temporary name first."""
        with replacing(path) as temporary:
            Image.fromarray(self.image).save(temporary, format="PNG", optimize=True)


def draw_sheet(
    frames: NDArray[np.uint8],
    states: Sequence[LayerStates],
    crop: Crop,
    title: str,
    subtitle: str = "",
    predictions: Sequence[Prediction] = (),
    frame_labels: Sequence[str] | None = None,
    columns: int = 8,
) -> Sheet:
    """Draw the sheet of one clip.

    Args:
        frames: (T, h, w, 3) uint8 RGB frames that the model saw, uncropped.
        states: the rows, from `layer_states`.
        crop: where the patch grid lies on the frames (of this or another size).
        title: first line, usually the name of the video.
        subtitle: second line, in gray.
        predictions: class names with probabilities, best first.
        frame_labels: one line above each of the T frames.
        columns: frames across; fewer than T are spread evenly over the clip.
    """
    num_frames, height, width = frames.shape[:3]
    shown = _spread(num_frames, columns)
    larger = FEW_LARGER if len(shown) <= FEW_COLUMNS else 1.0
    cell_width, cell_height = fit(width, height, round(larger * CELL_WIDTH), round(larger * CELL_HEIGHT))
    scaled_crop = crop.scaled(cell_width, cell_height)
    resized = [_resize(frames[i], cell_width, cell_height) for i in shown]
    labels = [frame_labels[i] if frame_labels else f"frame {i}" for i in shown]

    # Pictures of narrow or flat videos stand apart as far as the words above and beside them need.
    widest = max((font(LABEL_SIZE).getlength(label) for label in labels), default=0)
    column_width = max(cell_width, min(round(widest), CELL_WIDTH))
    row_height = max(cell_height, ROW_LINES * LINE_HEIGHT)
    header = _header_height(subtitle, predictions)
    grid_left, grid_top = MARGIN + LABEL_WIDTH, MARGIN + header + 26
    grid_width = len(shown) * (column_width + GAP) - GAP
    sheet_width = max(grid_left + grid_width + MARGIN, 2 * MARGIN + 980)
    grid_bottom = grid_top + (1 + len(states)) * (row_height + GAP) - GAP
    legend = _legend(states, crop, sheet_width - grid_left - MARGIN)
    image = Image.new("RGB", (sheet_width, grid_bottom + 34 + LEGEND_LINE * len(legend) + MARGIN // 2), PAPER)
    draw = ImageDraw.Draw(image)

    _header(draw, sheet_width, title, subtitle, predictions)
    cells: list[list[tuple[int, int, int, int]]] = []
    for row in range(1 + len(states)):
        row_top = grid_top + row * (row_height + GAP)
        top = row_top + (row_height - cell_height) // 2
        states_of_row = states[row - 1] if row else None
        _row_label(draw, row_top, row_height, states_of_row)
        cells.append([])
        for column, (index, frame) in enumerate(zip(shown, resized, strict=True)):
            left = grid_left + column * (column_width + GAP) + (column_width - cell_width) // 2
            if row == 0:
                write(draw, (left + cell_width / 2, top - 8), labels[column], LABEL_SIZE, column_width + GAP,
                      color=MUTED, anchor="ms")  # fmt: skip
            if states_of_row is None:
                picture = frame
            else:
                picture = paint(frame, states_of_row, states_of_row.frame(index, num_frames), scaled_crop)
            image.paste(Image.fromarray(picture), (left, top))
            cells[-1].append((left, top, cell_width, cell_height))
    for number, line in enumerate(legend):
        _draw_legend(draw, grid_left, grid_bottom + 22 + LEGEND_LINE * number, line)
    return Sheet(np.asarray(image), shown, [s.layer for s in states], cells)


def _spread(count: int, most: int) -> list[int]:
    """At most ``most`` of the numbers 0 .. count - 1, evenly spread, both ends included."""
    if count <= most:
        return list(range(count))
    return sorted({int(i) for i in np.linspace(0, count - 1, max(most, 1)).round()})


def _resize(frame: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    image = Image.fromarray(frame)
    # Small frames keep their pixels visible; smooth enlargement would suggest detail that the model never saw.
    method = Image.Resampling.BOX if width >= 3 * image.width else Image.Resampling.LANCZOS
    return np.asarray(image.resize((width, height), method))


def _header_height(subtitle: str, predictions: Sequence[Prediction]) -> int:
    return max(34 + (24 if subtitle else 0), PREDICTION_HEIGHT * len(predictions)) + 14


def _header(
    draw: ImageDraw.ImageDraw, width: int, title: str, subtitle: str, predictions: Sequence[Prediction]
) -> None:
    text_width = width - 2 * MARGIN - (PREDICTION_WIDTH + 30 if predictions else 0)
    write(draw, (MARGIN, MARGIN), title, 24, text_width, bold=True)
    write(draw, (MARGIN, MARGIN + 36), subtitle, 14, text_width, color=MUTED)
    left = width - MARGIN - PREDICTION_WIDTH
    name_width, bar_width = 200, 120
    for rank, (name, probability) in enumerate(predictions):
        top = MARGIN + rank * PREDICTION_HEIGHT
        write(draw, (left + name_width, top + 9), name, 14, name_width, bold=rank == 0, anchor="rm")
        bar = left + name_width + 10
        draw.rectangle((bar, top + 2, bar + bar_width, top + 16), fill=BAR_GROUND)
        if probability * bar_width >= 0.5:
            draw.rectangle((bar, top + 2, bar + round(probability * bar_width), top + 16), fill=BAR_COLOR)
        percent = f"{100 * probability:.1f} %"
        write(draw, (left + PREDICTION_WIDTH, top + 9), percent, 13, 60, color=MUTED, anchor="rm")


def _row_label(draw: ImageDraw.ImageDraw, top: int, height: int, states: LayerStates | None) -> None:
    lines: list[tuple[str, bool]]
    if states is None:
        lines = [("input", True), ("sampled frames", False)]
    else:
        name = "output" if states.layer == "output" else f"layer {states.layer}"
        lines = [(name, True)]
        if states.layer != "output":
            lines.append((states.method + (", as output" if states.is_output else ""), False))
        share = f" ({states.num_tokens / states.num_patches:.0%})" if states.reduces else ""
        lines.append((f"{states.num_patches:,} patches in", False))
        lines.append((f"{states.num_tokens:,} tokens{share}", False))
    y = top + (height - LINE_HEIGHT * len(lines)) / 2
    for text, bold in lines:
        write(draw, (MARGIN, y), text, 16 if bold else 13, LABEL_WIDTH - 14, bold, INK if bold else MUTED)
        y += LINE_HEIGHT


@dataclass(frozen=True)
class _LegendEntry:
    colors: list[tuple[int, ...]]
    meaning: str

    @property
    def width(self) -> float:
        return SWATCH * len(self.colors) + 5 + font(13).getlength(self.meaning) + 26


def _legend(states: Sequence[LayerStates], crop: Crop, width: float) -> list[list[_LegendEntry]]:
    """Lines that say what the colours mean; only of those that occur."""
    present = {int(s) for row in states for s in np.unique(row.state)}
    tint = tuple(round(150 * (1 - FUSED_STRENGTH) + c * 0.75 * FUSED_STRENGTH) for c in FUSED_COLOR)
    shared: list[tuple[int, ...]] = []
    for row in states:
        shared += [tuple(int(v) for v in c) for c in np.unique(row.color[row.state == SHARED], axis=0)]
    spread = [shared[i] for i in _spread(len(shared), 4)]
    dark = round(150 * DROPPED_LIGHT)
    meanings = {
        KEPT: _LegendEntry([(222, 216, 200)], "kept: a token of its own"),
        FUSED: _LegendEntry([tint], "fused: lives on only inside a fused token"),
        DROPPED: _LegendEntry([(dark, dark, dark)], "dropped"),
        SHARED: _LegendEntry(spread, "patches that share a token: one colour each"),
    }
    entries = [entry for state, entry in meanings.items() if state in present]
    if any((row.fused & (row.state == SHARED)).any() for row in states):
        darker = [tuple(round(0.6 * v) for v in color) for color in spread]
        entries.append(_LegendEntry(darker, "the same, come in through a fused token"))
    if not crop.covers_frame:
        entries.append(_LegendEntry([(OUTSIDE_GRAY + 12,) * 3], "outside the crop that the model sees"))
    lines: list[list[_LegendEntry]] = [[]]
    for entry in entries:
        if lines[-1] and sum(e.width for e in lines[-1]) + entry.width > width:
            lines.append([])
        lines[-1].append(entry)
    return lines


def _draw_legend(draw: ImageDraw.ImageDraw, left: int, top: int, entries: list[_LegendEntry]) -> None:
    x = float(left)
    for entry in entries:
        for number, color in enumerate(entry.colors):
            at = x + SWATCH * number
            draw.rectangle((at, top, at + 15, top + 15), fill=color, outline=(90, 94, 104))
        draw.text((x + SWATCH * len(entry.colors) + 5, top + 8), entry.meaning, fill=INK, font=font(13), anchor="lm")
        x += entry.width
