"""What happens when: class probabilities of windows that slide over a whole video."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from stvideo.data.decode import Readable, VideoInfo, open_video
from stvideo.drawing.plots import plot_timeline
from stvideo.errors import StvideoError
from stvideo.files import write_atomically
from stvideo.inference import Predictor, Window


def save_timeline(path: Path, predictor: Predictor, folder: Path, name: str) -> list[Path]:
    """Write NAME_timeline.json and NAME_timeline.png.

    Raises:
        StvideoError: the video cannot be read, or a file not written.
    """
    with open_video(path, predictor.data.decoder, predictor.data.timeout) as video:
        info = video.info
        windows = timeline_windows(predictor, info)
        scores = score_windows(video, predictor, windows, path.name)
    summary = describe(predictor, path, info, windows, scores)
    json_path, plot_path = folder / f"{name}_timeline.json", folder / f"{name}_timeline.png"
    starts = np.array([w.start for w in windows]) / info.fps
    try:
        write_atomically(json_path, json.dumps(summary, indent=1) + "\n")
        plot_timeline(plot_path, path.name, starts, info.duration, scores, predictor.classes, predictor.config.top_k)
    except OSError as error:
        raise StvideoError(f"{folder}: cannot be written: {error.strerror or error}") from None
    return [json_path, plot_path]


def timeline_windows(predictor: Predictor, info: VideoInfo) -> list[Window]:
    """Windows of ``predict.window_seconds`` every ``predict.hop_seconds``."""
    settings = predictor.config.predict
    length = settings.window_seconds * info.fps if settings.window_seconds else predictor.span(info)
    hop = settings.hop_seconds * info.fps if settings.hop_seconds else length / 2
    return predictor.windows(info, hop, length)


def score_windows(video: Readable, predictor: Predictor, windows: list[Window], name: str = "") -> NDArray[np.float32]:
    """Class probabilities (W, K), one row per window, centre crop."""
    rows = [
        predictor.run(predictor.read_clip(video, window.indices))[0]
        for window in tqdm(windows, unit="window", desc=name, leave=False, disable=None)
    ]
    return np.stack(rows)


def describe(
    predictor: Predictor, path: Path, info: VideoInfo, windows: list[Window], scores: NDArray[np.float32]
) -> dict[str, Any]:
    """What the JSON file says. Times in seconds; ``start`` to ``end`` is what the window reaches over."""
    end = info.duration
    return {
        "video": str(path),
        "seconds": round(end, 3),
        "fps": info.fps,
        "model": predictor.name,
        "windows": [
            {
                "start": round(window.begin / info.fps, 3),
                "end": round(min(window.end / info.fps, end), 3),
                "frames": [int(i) for i in window.indices],
                "top": [
                    {"class": name, "probability": round(probability, 6)}
                    for name, probability in predictor.top(row, predictor.config.top_k)
                ],
            }
            for window, row in zip(windows, scores, strict=True)
        ],
    }
