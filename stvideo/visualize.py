"""Show which parts of the frames a model used: a sheet of pictures, an overlay video and a web page to explore.

    python -m stvideo.visualize video.mp4 checkpoint=runs/k400_evit output=pictures
    python -m stvideo.visualize clips/ 'more/*.webm' checkpoint=model.safetensors output=pictures top_k=3

For every video these files appear in output=, named after it:

    NAME_tokens.png    the clip that a one-clip evaluation takes (the middle of the video): sampled frames across,
                       reduction layers down
    NAME_tokens.mp4    every frame of the video at its own rate. The model runs on clips that follow each other until
                       the video is covered; each frame shows the mask of the nearest frame that the model has seen
    NAME_tokens.html   the clip of the sheet as one page without other files: scrub through frames and layers, point at
                       a patch to see which token it became, where that token's other patches are, and its score
    NAME_tokens.gif    on request: the MP4 in small

Kept patches stay bright, fused ones are tinted, dropped ones dark; patches that share a token (semantic tokens) take a
colour per token. What lies outside the model's crop is faded. Classes, normalisation, sampling and crop come from the
checkpoint (a run folder, a .safetensors file or an official TimeSformer file). Further settings:

    top_k=5                               classes named on the sheet
    visualize.outputs=[png,mp4,gif,html]  which files (default: all but the GIF)
    visualize.columns=8                   frames across the sheet
    visualize.layer=3                     layer that the MP4 shows (default: the last one that reduces)
    visualize.video_side=1280             larger videos are scaled down to this longer side in the MP4
    visualize.max_clips=100               of a longer video so many clips are run, evenly spread; gaps stay unpainted
    model.reduction.evit.keep_rate=0.5    look at another reduction with the same weights
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from stvideo.core.errors import StvideoError, nearest
from stvideo.core.messages import in_one_line
from stvideo.data.video.decode import Readable, VideoInfo, open_video, seconds_at
from stvideo.drawing.encode import GifWriter, VideoWriter
from stvideo.drawing.geometry import Crop, fit
from stvideo.drawing.overlay import FramePainter
from stvideo.drawing.page import FRAME_BOX, draw_page, save_page
from stvideo.drawing.sheet import draw_sheet
from stvideo.drawing.states import LayerStates, layer_states
from stvideo.inference.inputs import collect_videos, for_each, output_folder, output_names
from stvideo.inference.predictor import Predictor, Window, load_predictor
from stvideo.settings import cli
from stvideo.settings.config import VisualizeConfig

OUTPUTS = ("png", "mp4", "gif", "html")
FRAMES_BYTES = 192 * 2**20  # decoded frames held at a time


def main(argv: list[str] | None = None) -> int:
    """The command. Returns its exit status."""
    positional, overrides = cli.split_arguments(argv, __doc__ or "")
    videos = collect_videos(positional, "visualize")
    predictor = load_predictor(overrides)
    wanted_outputs(predictor)
    check_settings(predictor.config.visualize)
    output = output_folder(overrides, "visualize writes pictures")
    names = output_names(videos)
    return for_each(
        videos, lambda video: visualize(video, predictor, output, names[video]), "visualised", predictor.config
    )


def visualize(path: Path, predictor: Predictor, output: Path, name: str) -> None:
    """Write the pictures of one video.

    Raises:
        StvideoError: the video cannot be read, or a file not be written.
    """
    targets = {kind: output / f"{name}_tokens.{kind}" for kind in OUTPUTS if kind in wanted_outputs(predictor)}
    gaps = ""
    with open_video(path, predictor.data.decoder, predictor.data.timeout) as video:
        info = video.info
        for target in targets.values():
            _keep_input(target, path)
        indices = predictor.indices(info)
        probabilities, trace = predictor.run(predictor.read_clip(video, indices))
        states = layer_states(trace)
        choose_layer(states, predictor.config.visualize.layer)  # a wrong layer is told before anything is written
        predictions = predictor.top(probabilities, predictor.config.top_k)
        if "png" in targets or "html" in targets:
            frames = video.read([int(i) for i in indices], size=_shrunk(info, *FRAME_BOX)).numpy()
            seconds = seconds_at(video, indices)
            title = in_one_line(path.name)
            write_clip(targets, frames, states, predictions, predictor, info, title, indices, seconds)
        if "mp4" in targets or "gif" in targets:
            gaps = write_overlay(video, info, predictor, targets.get("mp4"), targets.get("gif"))
    best = f"{predictions[0][0]} {predictions[0][1]:.1%}" if predictions else predictor.name
    shown = in_one_line(path)
    print(f"{shown}: {best} -> {', '.join(map(in_one_line, targets.values()))}", flush=True)
    if not any(row.reduces for row in states):
        print(f"{shown}: the model reduces nothing: every patch is a token of its own", flush=True)
    if gaps:
        print(f"{shown}: long video: {gaps}; visualize.max_clips= sets how many clips are run", flush=True)


def wanted_outputs(predictor: Predictor) -> list[str]:
    """``visualize.outputs``, checked."""
    outputs = predictor.config.visualize.outputs
    for kind in outputs:
        if kind not in OUTPUTS:
            raise StvideoError(
                f"visualize.outputs: unknown {kind!r}{nearest(kind, OUTPUTS)}: choose from {', '.join(OUTPUTS)}"
            )
    if not outputs:
        raise StvideoError(f"visualize.outputs=[]: nothing to write; choose from {', '.join(OUTPUTS)}")
    return outputs


def check_settings(settings: VisualizeConfig) -> None:
    """Raises `StvideoError` for a value that cannot be meant."""
    for key in ("columns", "video_side", "max_clips"):
        value = getattr(settings, key)
        if value < 1:
            raise StvideoError(f"visualize.{key}={value}: must be at least 1")


def write_clip(
    targets: dict[str, Path],
    frames: NDArray[np.uint8],
    states: Sequence[LayerStates],
    predictions: list[tuple[str, float]],
    predictor: Predictor,
    info: VideoInfo,
    title: str,
    indices: NDArray[np.int64],
    seconds: NDArray[np.float64],
) -> None:
    """Write the sheet and the page of one clip, as far as ``targets`` has them."""
    crop = predictor.crop(info.width, info.height)
    subtitle = _describe(predictor, info, indices)
    labels = [f"frame {i} · {second:.2f} s" for i, second in zip(indices, seconds, strict=True)]
    written = targets.get("png")
    try:
        if "png" in targets:
            columns = predictor.config.visualize.columns
            draw_sheet(frames, states, crop, title, subtitle, predictions, labels, columns).save(targets["png"])
        if "html" in targets:
            written = targets["html"]
            save_page(draw_page(frames, states, crop, title, subtitle, predictions, labels, indices), written)
    except OSError as error:
        raise StvideoError(f"{written}: cannot be written: {error.strerror or error}") from None


def choose_layer(states: Sequence[LayerStates], layer: int | None) -> LayerStates:
    """The row for the overlay: the wanted layer, else the last one that reduces, else the output.

    Raises:
        StvideoError: the wanted layer reduces nothing; the message names those that do.
    """
    if layer is not None:
        chosen = [row for row in states if row.layer == layer]
        if not chosen:
            have = ", ".join(str(row.layer) for row in states if row.layer != "output") or "none"
            raise StvideoError(f"visualize.layer={layer}: no reduction in this layer; layers with one: {have}")
        return chosen[0]
    return next((row for row in reversed(states) if row.reduces), states[-1])


def write_overlay(video: Readable, info: VideoInfo, predictor: Predictor, mp4: Path | None, gif: Path | None) -> str:
    """Write every frame of the video with the mask of the nearest sampled frame, holding a few frames at a time.

    Returns:
        Empty, or for a video with more clips than ``visualize.max_clips``, what was left out.
    """
    settings = predictor.config.visualize
    every = predictor.windows(info)
    chosen = {int(i) for i in np.linspace(0, len(every) - 1, max(1, settings.max_clips)).round()}
    size = _shrunk(info, settings.video_side, settings.video_side)
    height, width = size or (info.height, info.width)
    crop = predictor.crop(info.width, info.height).scaled(width, height)
    with ExitStack() as stack:
        writers: list[VideoWriter | GifWriter] = []
        if mp4 is not None:
            writers.append(stack.enter_context(VideoWriter(mp4, info.fps, width, height)))
        if gif is not None:
            writers.append(stack.enter_context(GifWriter(gif, info.fps, info.num_frames)))
        bar = stack.enter_context(tqdm(total=info.num_frames, unit="frame", leave=False, disable=None))
        for number, window in enumerate(every):
            painters = _painters(video, predictor, window, crop) if number in chosen else []
            for frame, picture in _frames(video, window, size, (height, width)):
                painted = painters[window.nearest(frame)](picture) if painters else picture
                for writer in writers:
                    writer.write(painted)
                bar.update()
    if len(chosen) == len(every):
        return ""
    return f"{len(chosen)} of {len(every)} clips were run, frames of the others are shown without a mask"


def _frames(
    video: Readable, window: Window, size: tuple[int, int] | None, pixels: tuple[int, int]
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Number and picture of every frame of a window, a limited number of them in memory."""
    step = max(8, FRAMES_BYTES // (3 * pixels[0] * pixels[1]))
    for start in range(window.start, window.stop, step):
        block = range(start, min(start + step, window.stop))
        yield from zip(block, video.read(block, size=size).numpy(), strict=True)


def _painters(video: Readable, predictor: Predictor, window: Window, crop: Crop) -> list[Any]:
    """Run the model on a window; how to paint each of its T sampled frames."""
    _, trace = predictor.run(predictor.read_clip(video, window.indices))
    row = choose_layer(layer_states(trace), predictor.config.visualize.layer)
    count = len(window.indices)
    of_grid_frame = [FramePainter(row, t, crop) for t in range(row.token.shape[0])]
    return [of_grid_frame[row.frame(i, count)] for i in range(count)]


def _shrunk(info: VideoInfo, max_width: int, max_height: int) -> tuple[int, int] | None:
    """(height, width) that fits a box, or None if the video does as it is."""
    if info.width <= max_width and info.height <= max_height:
        return None
    width, height = fit(info.width, info.height, max_width, max_height)
    return height, width


def _describe(predictor: Predictor, info: VideoInfo, indices: np.ndarray) -> str:
    first, last = int(indices[0]), int(indices[-1])
    span = f"frame {first}" if first == last else f"frames {first} to {last}"
    span += f" of {info.num_frames}"
    short = ", shorter than a clip: frames repeat" if predictor.repeats(info) else ""
    return f"{info.width} x {info.height}, {info.fps:.4g} fps · {span}{short} · {predictor.name}"


def _keep_input(target: Path, source: Path) -> None:
    """Never write over the video that is being read."""
    if target.exists() and target.samefile(source):
        raise StvideoError(f"{source}: its picture would overwrite it; choose another output= folder")


if __name__ == "__main__":
    cli.run(main)
