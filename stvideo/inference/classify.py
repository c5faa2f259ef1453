"""Name the classes of one video, for people or as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from stvideo.core.messages import in_one_line
from stvideo.data.video.decode import seconds_at
from stvideo.drawing.bars import text_bars
from stvideo.inference.predictor import Predictor, as_dicts


def print_classes(path: Path, predictor: Predictor, as_json: bool) -> None:
    """Print the most probable classes of one video.

    Raises:
        StvideoError: it cannot be read.
    """
    views = predictor.config.predict.views
    with predictor.open(path) as video:
        duration = float(np.ptp(seconds_at(video, [0, video.num_frames])))
        short = predictor.repeats(video.info)
        best = predictor.top(predictor.score(video, views), predictor.config.top_k)
    if as_json:
        print(json.dumps({"video": str(path), "seconds": round(duration, 3), "views": views, "top": as_dicts(best)}))
    else:
        note = ", shorter than a clip: frames repeat" if short else ""
        print(f"{in_one_line(path)}  ({duration:.1f} s, {views} views{note})")
        print("".join(f"  {line}\n" for line in text_bars(best, encoding=sys.stdout.encoding)), end="")
    sys.stdout.flush()


def print_written(video: Path, written: list[Path], as_json: bool) -> None:
    """Print which files came of a video."""
    if as_json:
        print(json.dumps({"video": str(video), "written": [str(p) for p in written]}), flush=True)
    else:
        print(f"{in_one_line(video)} -> {', '.join(map(in_one_line, written))}", flush=True)
