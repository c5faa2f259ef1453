"""Name what happens in a video.

    python -m stvideo.predict video.mp4 checkpoint=runs/k400_stvit
    python -m stvideo.predict clips/ 'more/*.webm' checkpoint=model.safetensors top_k=3
    find . -name '*.mp4' | python -m stvideo.predict - checkpoint=runs/x --json > predictions.jsonl
    python -m stvideo.predict match.mp4 checkpoint=runs/x --timeline output=timelines
    python -m stvideo.predict clips/ checkpoint=runs/x predict.features=clip output=features
    python -m stvideo.predict camera:0 checkpoint=runs/x    (or stream:URL, stream:FILE; ends with Ctrl-C)

A folder stands for the videos inside it, - for a list on standard input. Classes, normalisation, sampling and crop
come from the checkpoint (a run folder, a .safetensors file or an official TimeSformer file). Options:

    --json          one line of JSON per video (or per clip of a stream) on standard output
    --timeline      slide over the whole video: NAME_timeline.json and NAME_timeline.png in output=

    top_k=5                          classes named per video
    predict.views=1x3                clips x crops per video, averaged (1x1 is three times as fast), or a protocol
    predict.window_seconds=4         timeline: length of a window (default: what a clip of the model spans)
    predict.hop_seconds=1            timeline: from one window to the next (default: half a window)
    predict.features=clip            save features: clip | frame | token | map, as NAME_features.npz in output=;
                                     with --timeline those of every window
    predict.feature_format=npz       npz | safetensors
    model.reduction.evit.keep_rate=0.5   use another reduction with the same weights

Exit status: 0, 1 if some of several videos failed, 2 for a mistake.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from stvideo.core.errors import StvideoError, nearest
from stvideo.core.messages import in_one_line
from stvideo.data.clips.protocols import find_protocol
from stvideo.data.video.decode import open_video, seconds_at
from stvideo.drawing.bars import text_bars
from stvideo.inference.features import FEATURES, FORMATS, save_features
from stvideo.inference.inputs import collect_videos, for_each, output_folder, output_names
from stvideo.inference.predictor import Predictor, load_predictor
from stvideo.inference.streaming import is_stream, watch
from stvideo.inference.timeline import save_timeline
from stvideo.settings import cli
from stvideo.settings.config import PredictConfig

FLAGS = ("--json", "--timeline")


def main(argv: list[str] | None = None) -> int:
    """The command. Returns its exit status."""
    positional, overrides = cli.split_arguments(argv, __doc__ or "", FLAGS)
    flags = [text for text in positional if text in FLAGS]
    arguments = [text for text in positional if text not in FLAGS]
    as_json, timeline = "--json" in flags, "--timeline" in flags
    streams = [text for text in arguments if is_stream(text)]
    if streams:
        return _watch(arguments, overrides, as_json, timeline)
    videos = collect_videos(arguments, "predict")
    predictor = load_predictor(overrides)
    settings = predictor.config.predict
    check_settings(settings)
    find_protocol(settings.views).check_sampling(predictor.data.sampling, "predict.views")
    if not timeline and not settings.features:
        return for_each(videos, lambda video: predict(video, predictor, as_json), "predicted", predictor.config)

    what = "--timeline" if timeline else "predict.features="
    folder = output_folder(overrides, f"{what} writes files")
    names = output_names(videos)

    def write(video: Path) -> None:
        if settings.features:
            written = save_features(video, predictor, folder, names[video], per_window=timeline)
        else:
            written = save_timeline(video, predictor, folder, names[video])
        report(video, written, as_json)

    return for_each(videos, write, "done", predictor.config)


def predict(path: Path, predictor: Predictor, as_json: bool) -> None:
    """Print the most probable classes of one video; raises `StvideoError` if it cannot be read."""
    views = predictor.config.predict.views
    with open_video(path, predictor.data.decoder, predictor.data.timeout) as video:
        duration = float(seconds_at(video, [video.num_frames])[0])
        short = predictor.repeats(video.info)
        scores = predictor.score(video, views)
    best = predictor.top(scores, predictor.config.top_k)
    if as_json:
        print(json.dumps({"video": str(path), "seconds": round(duration, 3), "views": views, "top": as_dicts(best)}))
    else:
        note = ", shorter than a clip: frames repeat" if short else ""
        print(f"{in_one_line(path)}  ({duration:.1f} s, {views} views{note})")
        for line in text_bars(best, encoding=sys.stdout.encoding):
            print(f"  {line}")
    sys.stdout.flush()


def as_dicts(predictions: list[tuple[str, float]]) -> list[dict[str, Any]]:
    """Class names and probabilities for JSON, best first."""
    return [{"class": name, "probability": round(probability, 6)} for name, probability in predictions]


def report(video: Path, written: list[Path], as_json: bool) -> None:
    """Say which files came of a video."""
    if as_json:
        print(json.dumps({"video": str(video), "written": [str(p) for p in written]}), flush=True)
    else:
        print(f"{in_one_line(video)} -> {', '.join(map(in_one_line, written))}", flush=True)


def check_settings(settings: PredictConfig) -> None:
    """Raises `StvideoError` for a value that cannot be meant."""
    find_protocol(settings.views)
    for key in ("window_seconds", "hop_seconds"):
        value = getattr(settings, key)
        if value is not None and not 0 < value < float("inf"):
            raise StvideoError(f"predict.{key}={value}: expected a finite number of seconds above 0")
    for key, choices in (("features", FEATURES), ("feature_format", FORMATS)):
        value = getattr(settings, key)
        if value is not None and value not in choices:
            raise StvideoError(f"predict.{key}={value}: choose {', '.join(choices)}{nearest(str(value), choices)}")


def _watch(arguments: list[str], overrides: list[str], as_json: bool, timeline: bool) -> int:
    if len(arguments) > 1:
        raise StvideoError(f"{arguments[0]}: a camera or stream is watched alone, without other videos")
    predictor = load_predictor(overrides)
    check_settings(predictor.config.predict)
    if timeline or predictor.config.predict.features:
        raise StvideoError(f"{arguments[0]}: a stream has no end; --timeline and predict.features= need a file")
    watch(arguments[0], predictor, as_json)
    return 0


if __name__ == "__main__":
    cli.run(main)
