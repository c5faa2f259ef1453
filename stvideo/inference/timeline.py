"""Compute class probabilities of windows that slide over a whole video."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from stvideo.core.files import write_atomically
from stvideo.data.video.decode import VideoInfo, seconds_at
from stvideo.inference.predictor import Predictor, Window, as_dicts


def save_timeline(path: Path, predictor: Predictor, folder: Path, name: str) -> list[Path]:
    """Write NAME_timeline.json and NAME_timeline.png.

    Times are in seconds; ``start`` to ``end`` of a window in the JSON file is what its clip reaches over.

    Raises:
        StvideoError: the video cannot be read, or a file not written.
    """
    count = predictor.config.top_k
    with predictor.open(path) as video:
        windows = timeline_windows(predictor, video.info)
        scores = np.stack([predictor.run(clip)[0] for clip in predictor.read_windows(video, windows)])
        starts = seconds_at(video, [window.start for window in windows])
        spans = seconds_at(video, np.array([(window.begin, window.end) for window in windows])).tolist()
        length, fps = round(float(seconds_at(video, [video.num_frames])[0]), 3), video.fps
    summary = {
        "video": str(path),
        "seconds": length,
        "fps": fps,
        "model": predictor.model.spec["name"],
        "windows": [
            {
                "start": round(start, 3),
                "end": round(end, 3),
                "frames": window.indices.tolist(),
                "top": as_dicts(predictor.top(row, count)),
            }
            for window, (start, end), row in zip(windows, spans, scores, strict=True)
        ],
    }
    json_path, plot_path = folder / f"{name}_timeline.json", folder / f"{name}_timeline.png"
    write_atomically(json_path, json.dumps(summary, indent=1) + "\n")
    from stvideo.drawing.plots import plot_timeline  # with matplotlib, which predictions alone do without

    plot_timeline(plot_path, path.name, starts, length, scores, predictor.model.classes, count)
    return [json_path, plot_path]


def timeline_windows(predictor: Predictor, info: VideoInfo) -> list[Window]:
    """Divide a video into windows of ``predict.window_seconds`` every ``predict.hop_seconds``."""
    settings = predictor.config.predict
    length = settings.window_seconds * info.fps if settings.window_seconds else predictor.span(info)
    hop = settings.hop_seconds * info.fps if settings.hop_seconds else length / 2
    return predictor.windows(info, hop, length)
