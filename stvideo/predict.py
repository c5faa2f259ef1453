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

from pathlib import Path

from stvideo.core.errors import StvideoError
from stvideo.data.clips.protocols import find_protocol
from stvideo.inference.classify import print_classes, print_written
from stvideo.inference.features import save_features
from stvideo.inference.inputs import collect_videos, for_each, output_folder, output_names
from stvideo.inference.predictor import load_predictor
from stvideo.inference.streaming import is_stream, watch
from stvideo.inference.timeline import save_timeline
from stvideo.settings import cli

FLAGS = ("--json", "--timeline")


def main(argv: list[str] | None = None) -> int:
    """Run the command. Returns its exit status."""
    positional, overrides = cli.split_arguments(argv, __doc__ or "", FLAGS)
    arguments = [text for text in positional if text not in FLAGS]
    as_json, timeline = "--json" in positional, "--timeline" in positional
    stream = next(filter(is_stream, arguments), None)
    videos = [] if stream else collect_videos(arguments, "predict")
    if stream and len(arguments) > 1:
        raise StvideoError(f"{stream}: a camera or stream is watched alone, without other videos")
    predictor = load_predictor(overrides)
    settings = predictor.config.predict
    find_protocol(settings.views).check_sampling(predictor.preprocessing.sampling, "predict.views")
    if stream:
        if timeline or settings.features:
            raise StvideoError(f"{stream}: a stream has no end; --timeline and predict.features= need a file")
        watch(stream, predictor, as_json)
        return 0
    if not timeline and not settings.features:
        return for_each(videos, lambda video: print_classes(video, predictor, as_json), "predicted", predictor.config)

    folder = output_folder(overrides, f"{'--timeline' if timeline else 'predict.features='} writes files")
    names = output_names(videos)

    def write(video: Path) -> None:
        if settings.features:
            written = save_features(video, predictor, folder, names[video], per_window=timeline)
        else:
            written = save_timeline(video, predictor, folder, names[video])
        print_written(video, written, as_json)

    return for_each(videos, write, "done", predictor.config)


if __name__ == "__main__":
    cli.run(main)
