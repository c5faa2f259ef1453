"""Draw pictures of one video: sheet and page of its middle clip, and an overlay of all of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from stvideo.core.errors import StvideoError
from stvideo.core.files import write_atomically
from stvideo.core.messages import in_one_line
from stvideo.core.trace import Layer
from stvideo.data.video.decode import Readable, seconds_at
from stvideo.drawing.encode import video_writer
from stvideo.drawing.geometry import fit, spread
from stvideo.drawing.overlay import FramePainter
from stvideo.drawing.page import FRAME_BOX, draw_page
from stvideo.drawing.sheet import draw_sheet
from stvideo.drawing.states import LayerStates, layer_states
from stvideo.inference.predictor import Predictor, Window

FRAMES_BYTES = 192 * 2**20  # decoded frames held at a time


def save_pictures(path: Path, predictor: Predictor, folder: Path, name: str) -> None:
    """Write NAME_tokens.png, .html and .mp4, as far as ``visualize.outputs`` names them, and print what came of it.

    Raises:
        StvideoError: the video cannot be read, or a file not be written.
    """
    settings = predictor.config.visualize
    targets = {kind: folder / f"{name}_tokens.{kind}" for kind in settings.outputs}
    with predictor.open(path) as video:
        indices = predictor.indices(video.info, video.times)
        probabilities, trace = predictor.run(predictor.read_clip(video, indices))
        states = layer_states(trace, tubelet_size=predictor.model.tubelet_size)
        layer = choose_layer(states, settings.layer)
        predictions = predictor.top(probabilities, predictor.config.top_k)
        if "png" in targets or "html" in targets:
            _save_clip(targets, video, predictor, indices, states, predictions)
        left_out = _save_overlay(targets["mp4"], video, predictor, layer) if "mp4" in targets else ""
    best = f"{predictions[0][0]} {predictions[0][1]:.1%}" if predictions else predictor.model.spec["name"]
    shown = in_one_line(path)
    print(f"{shown}: {best} -> {', '.join(map(in_one_line, targets.values()))}", flush=True)
    if not any(row.reduces for row in states):
        print(f"{shown}: the model reduces nothing: every patch is a token of its own", flush=True)
    if left_out:
        print(f"{shown}: long video: {left_out}; visualize.max_clips= sets how many clips are run", flush=True)


def choose_layer(states: Sequence[LayerStates], layer: int | None) -> Layer:
    """Choose the layer for the overlay: the wanted one, else the last one that reduces, else the output.

    Raises:
        StvideoError: the wanted layer reduces nothing; the message names those that do.
    """
    have = [row.layer for row in states]
    if layer is not None and layer not in have:
        names = ", ".join(str(name) for name in have if name != "output") or "none"
        raise StvideoError(f"visualize.layer={layer}: no reduction in this layer; layers with one: {names}")
    return layer if layer is not None else next((row.layer for row in reversed(states) if row.reduces), have[-1])


def _save_clip(
    targets: dict[str, Path],
    video: Readable,
    predictor: Predictor,
    indices: NDArray[np.int64],
    states: Sequence[LayerStates],
    predictions: list[tuple[str, float]],
) -> None:
    """Write the sheet and the page of one clip, as far as ``targets`` has them."""
    info, columns = video.info, predictor.config.visualize.columns
    width, height = fit(*info.display_size, *FRAME_BOX, enlarge=False)
    frames = video.read(indices.tolist(), size=(height, width)).numpy()
    title = in_one_line(video.path.name)
    first, last = int(indices[0]), int(indices[-1])
    span = f"frame {first}" if first == last else f"frames {first} to {last}"
    short = ", shorter than a clip: frames repeat" if predictor.repeats(info) else ""
    shape = "" if info.pixel_aspect == 1 else f" shown as {info.display_size[0]} x {info.display_size[1]}"
    size, model = f"{info.width} x {info.height}{shape}, {info.fps:.4g} fps", predictor.model.spec["name"]
    subtitle = f"{size} · {span} of {info.num_frames}{short} · {model}"
    labels = [f"frame {i} · {second:.2f} s" for i, second in zip(indices, seconds_at(video, indices), strict=True)]
    area = predictor.area(info)
    if "png" in targets:
        draw_sheet(frames, states, area, title, subtitle, predictions, labels, columns).save(targets["png"])
    if "html" in targets:
        page = draw_page(frames, states, area, title, subtitle, predictions, labels, indices)
        write_atomically(targets["html"], page)


def _save_overlay(path: Path, video: Readable, predictor: Predictor, layer: Layer) -> str:
    """Write every frame of the video with the mask of the nearest sampled frame, holding a few frames at a time.

    Returns:
        Empty, or for a video with more clips than ``visualize.max_clips``, what was left out.
    """
    info, settings = video.info, predictor.config.visualize
    windows = predictor.windows(info)
    chosen = spread(len(windows), settings.max_clips)
    width, height = fit(*info.display_size, settings.video_side, settings.video_side, enlarge=False)
    area = predictor.area(info).scaled(width, height)
    with (
        video_writer(path, info.fps, width, height) as write,
        tqdm(total=info.num_frames, unit="frame", leave=False, disable=None) as bar,
    ):
        for number, window in enumerate(windows):
            step = -1
            if number in chosen:
                _, trace = predictor.run(predictor.read_clip(video, window.indices))
                (states,) = layer_states(trace, tubelet_size=predictor.model.tubelet_size, only=layer)
            for frame, picture in _frames(video, window, (height, width)):
                if number in chosen:
                    if step != (step := states.step_of(window.nearest(frame))):
                        painter = FramePainter(states, step, area)
                    picture = painter(picture)
                write(picture)
                bar.update()
    if len(chosen) == len(windows):
        return ""
    return f"{len(chosen)} of {len(windows)} clips were run, frames of the others are shown without a mask"


def _frames(video: Readable, window: Window, size: tuple[int, int]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Read number and picture of every frame of a window, a limited number of them in memory."""
    step = max(8, FRAMES_BYTES // (3 * size[0] * size[1]))
    for start in range(window.start, window.stop, step):
        block = range(start, min(start + step, window.stop))
        yield from zip(block, video.read(block, size=size).numpy(), strict=True)
