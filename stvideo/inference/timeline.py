"""What happens when: class probabilities of windows that slide over a whole video."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from stvideo.core.errors import StvideoError
from stvideo.core.files import write_atomically
from stvideo.data.video.decode import Readable, VideoInfo, open_video, seconds_at
from stvideo.drawing.plots import plot_timeline
from stvideo.inference.predictor import Predictor, Window


def save_timeline(path: Path, predictor: Predictor, folder: Path, name: str) -> list[Path]:
    """Write NAME_timeline.json and NAME_timeline.png.

    Raises:
        StvideoError: the video cannot be read, or a file not written.
    """
    with open_video(path, predictor.data.decoder, predictor.data.timeout) as video:
        info = video.info
        windows = timeline_windows(predictor, info)
        scores = score_windows(video, predictor, windows, path.name)
        starts = seconds_at(video, [window.start for window in windows])
        summary = describe(predictor, path, video, windows, scores)
    json_path, plot_path = folder / f"{name}_timeline.json", folder / f"{name}_timeline.png"
    try:
        write_atomically(json_path, json.dumps(summary, indent=1) + "\n")
        plot_timeline(
            plot_path, path.name, starts, summary["seconds"], scores, predictor.classes, predictor.config.top_k
        )
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
    predictor: Predictor, path: Path, video: Readable, windows: list[Window], scores: NDArray[np.float32]
) -> dict[str, Any]:
    """What the JSON file says. Times in seconds; ``start`` to ``end`` is what the window reaches over."""
    spans = np.array([(window.begin, window.end) for window in windows])
    return {
        "video": str(path),
        "seconds": round(float(seconds_at(video, [video.num_frames])[0]), 3),
        "fps": video.fps,
        "model": predictor.name,
        "windows": [
            {
                "start": round(start, 3),
                "end": round(end, 3),
                "frames": [int(i) for i in window.indices],
                "top": [
                    {"class": name, "probability": round(probability, 6)}
                    for name, probability in predictor.top(row, predictor.config.top_k)
                ],
            }
            for window, (start, end), row in zip(windows, seconds_at(video, spans).tolist(), scores, strict=True)
        ],
    }
