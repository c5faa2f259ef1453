"""Draw the sheet: sampled frames across, reduction layers down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from stvideo.core.files import replacing
from stvideo.drawing.geometry import PatchArea, fit, spread
from stvideo.drawing.overlay import DROPPED_LIGHT, FUSED_STRENGTH, OUTSIDE_GRAY, THROUGH_FUSED, paint
from stvideo.drawing.states import DROPPED, FUSED, FUSED_COLOR, KEPT, SHARED, LayerStates
from stvideo.drawing.text import MUTED, font, write

MARGIN, GAP = 28, 8
LABEL_WIDTH, LABEL_SIZE = 176, 13
LINE_HEIGHT, ROW_LINES = 21, 4  # of what stands beside a row
CELL_WIDTH, CELL_HEIGHT = 216, 240  # frames are scaled into this box
FEW_COLUMNS, FEW_LARGER = 3, 1.6  # up to so many frames are drawn larger by this factor
NARROWEST = 1036
NAME_WIDTH, BAR_WIDTH, PERCENT_WIDTH, PREDICTION_HEIGHT = 200, 120, 80, 22
BAR_COLOR, BAR_GROUND = (64, 120, 220), (229, 232, 238)
LEGEND_LINE, LEGEND_WIDTH, SWATCH = 24, 400, 17  # two entries a line

Prediction = tuple[str, float]
"""Class name and probability."""
Color = tuple[int, ...]


@dataclass(frozen=True)
class Sheet:
    """A finished sheet.

    Attributes:
        image: (height, width, 3) uint8 RGB.
        columns: for each column, the frame of the clip that it shows.
        cells: (left, top, width, height) of the picture in each [row][column]; row 0 holds the input frames.
    """

    image: NDArray[np.uint8]
    columns: list[int]
    cells: list[list[tuple[int, int, int, int]]]

    def save(self, path: Path) -> None:
        """Write a PNG, to a temporary name first; raises StvideoError."""
        with replacing(path) as temporary:
            Image.fromarray(self.image).save(temporary, format="PNG", optimize=True)


def draw_sheet(
    frames: NDArray[np.uint8],
    states: Sequence[LayerStates],
    area: PatchArea,
    title: str,
    subtitle: str = "",
    predictions: Sequence[Prediction] = (),
    frame_labels: Sequence[str] | None = None,
    columns: int = 8,
) -> Sheet:
    """Draw the sheet of one clip.

    Args:
        frames: (F, h, w, 3) uint8 RGB frames that the model saw, uncropped.
        states: the rows, from `layer_states`.
        area: where the patch grid lies on the frames (of this or another size).
        title: first line, usually the name of the video.
        subtitle: second line, in gray.
        predictions: class names with probabilities, best first.
        frame_labels: one line above each of the F frames.
        columns: frames across; fewer than F are spread evenly over the clip.

    Raises:
        StvideoError: the patch grid covers fewer than F frames.
    """
    num_frames, height, width = frames.shape[:3]
    shown = spread(num_frames, columns)
    larger = FEW_LARGER if len(shown) <= FEW_COLUMNS else 1.0
    cell_width, cell_height = fit(width, height, round(larger * CELL_WIDTH), round(larger * CELL_HEIGHT))
    labels = [frame_labels[i] if frame_labels else f"frame {i}" for i in shown]

    # Pictures of narrow or flat videos stand apart as far as the words above and beside them need.
    widest = max(font(LABEL_SIZE).getlength(label) for label in labels)
    column_step = max(cell_width, min(round(widest), CELL_WIDTH)) + GAP
    row_step = max(cell_height, ROW_LINES * LINE_HEIGHT) + GAP
    header = max(58 if subtitle else 34, PREDICTION_HEIGHT * len(predictions)) + 14
    grid_left, grid_top = MARGIN + LABEL_WIDTH, MARGIN + header + 26
    grid_bottom = grid_top + (1 + len(states)) * row_step
    legend = _legend(states, area)
    sheet_width = max(grid_left + len(shown) * column_step - GAP + MARGIN, NARROWEST)
    sheet_height = grid_bottom + 26 + LEGEND_LINE * ((len(legend) + 1) // 2) + MARGIN // 2
    image = Image.new("RGB", (sheet_width, sheet_height), (255, 255, 255))
    draw = ImageDraw.Draw(image)

    _draw_header(draw, sheet_width, title, subtitle, predictions)
    cells = [
        [
            (
                grid_left + column * column_step + (column_step - GAP - cell_width) // 2,
                grid_top + row * row_step + (row_step - GAP - cell_height) // 2,
                cell_width,
                cell_height,
            )
            for column in range(len(shown))
        ]
        for row in range(1 + len(states))
    ]
    for row, layer in enumerate([None, *states]):
        _draw_label(draw, grid_top + row * row_step + (row_step - GAP) / 2, layer)
    for column, (frame, label) in enumerate(zip(shown, labels, strict=True)):
        picture = _resized(frames[frame], cell_width, cell_height)
        left, top = cells[0][column][:2]
        write(draw, (left + cell_width / 2, top - 8), label, LABEL_SIZE, column_step, color=MUTED, anchor="ms")
        image.paste(Image.fromarray(picture), (left, top))
        for row, layer in enumerate(states, start=1):
            painted = paint(picture, layer, layer.step_of(frame), area)
            image.paste(Image.fromarray(painted), cells[row][column][:2])
    for number, (colors, meaning) in enumerate(legend):
        left, top = grid_left + LEGEND_WIDTH * (number % 2), grid_bottom + 14 + LEGEND_LINE * (number // 2)
        for color in colors:
            draw.rectangle((left, top, left + 15, top + 15), fill=color, outline=(90, 94, 104))
            left += SWATCH
        write(draw, (left + 5, top + 8), meaning, 13, LEGEND_WIDTH, anchor="lm")
    return Sheet(np.asarray(image), shown, cells)


def _resized(frame: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    image = Image.fromarray(frame)
    # Small frames keep their pixels visible; smooth enlargement would suggest detail that the model never saw.
    method = Image.Resampling.BOX if width >= 3 * image.width else Image.Resampling.LANCZOS
    return np.asarray(image.resize((width, height), method))


def _draw_header(
    draw: ImageDraw.ImageDraw, width: int, title: str, subtitle: str, predictions: Sequence[Prediction]
) -> None:
    left = width - MARGIN - NAME_WIDTH - BAR_WIDTH - PERCENT_WIDTH
    text_width = (left - 30 if predictions else width - MARGIN) - MARGIN
    write(draw, (MARGIN, MARGIN), title, 24, text_width, bold=True)
    write(draw, (MARGIN, MARGIN + 36), subtitle, 14, text_width, color=MUTED)
    bar = left + NAME_WIDTH + 10
    for rank, (name, probability) in enumerate(predictions):
        top = MARGIN + rank * PREDICTION_HEIGHT
        write(draw, (left + NAME_WIDTH, top + 9), name, 14, NAME_WIDTH, bold=rank == 0, anchor="rm")
        draw.rectangle((bar, top + 2, bar + BAR_WIDTH, top + 16), fill=BAR_GROUND)
        if probability * BAR_WIDTH >= 0.5:
            draw.rectangle((bar, top + 2, bar + round(probability * BAR_WIDTH), top + 16), fill=BAR_COLOR)
        percent = f"{100 * probability:.1f} %"
        write(draw, (width - MARGIN, top + 9), percent, 13, PERCENT_WIDTH, color=MUTED, anchor="rm")


def _draw_label(draw: ImageDraw.ImageDraw, middle: float, layer: LayerStates | None) -> None:
    """Say what a row shows, on up to `ROW_LINES` lines around a height; None: the input frames."""
    if layer is None:
        lines = ["input", "sampled frames"]
    else:
        method = [] if layer.layer == "output" else [layer.method + (", as output" if layer.is_output else "")]
        lines = [layer.name, *method, f"{layer.num_patches:,} patches in", layer.count]
    top = middle - LINE_HEIGHT * len(lines) / 2
    write(draw, (MARGIN, top), lines[0], 16, LABEL_WIDTH - 14, bold=True)
    for number, text in enumerate(lines[1:], start=1):
        write(draw, (MARGIN, top + LINE_HEIGHT * number), text, 13, LABEL_WIDTH - 14, color=MUTED)


def _legend(states: Sequence[LayerStates], area: PatchArea) -> list[tuple[list[Color], str]]:
    """List colours with their meanings, only those that occur."""
    present = {int(state) for row in states for state in np.unique(row.state)}
    every = np.unique(np.concatenate([row.color[row.state == SHARED] for row in states]), axis=0)
    shared = [tuple(every[i].tolist()) for i in spread(len(every), 4)]
    tint = tuple(round(150 * (1 - FUSED_STRENGTH) + c * 0.75 * FUSED_STRENGTH) for c in FUSED_COLOR)
    meanings: dict[int, tuple[list[Color], str]] = {
        KEPT: ([(222, 216, 200)], "kept: a token of its own"),
        FUSED: ([tint], "fused: lives on only inside a fused token"),
        DROPPED: ([(round(150 * DROPPED_LIGHT),) * 3], "dropped"),
        SHARED: (shared, "patches that share a token: one colour each"),
    }
    entries = [entry for state, entry in meanings.items() if state in present]
    if any((row.fused & (row.state == SHARED)).any() for row in states):
        darker = [tuple(round(THROUGH_FUSED * v) for v in color) for color in shared]
        entries.append((darker, "the same, come in through a fused token"))
    if not area.covers_frame:
        entries.append(([(OUTSIDE_GRAY + 12,) * 3], "outside the crop that the model sees"))
    return entries
