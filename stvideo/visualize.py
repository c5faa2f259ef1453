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

Kept patches stay bright, fused ones are tinted, dropped ones dark; patches that share a token (semantic tokens) take a
colour per token. What lies outside the model's crop is faded. Classes, normalisation, sampling and crop come from the
checkpoint (a run folder, a .safetensors file or an official TimeSformer file). Further settings:

    top_k=5                               classes named on the sheet
    visualize.outputs=[png,html]          which files (default: [png,mp4,html])
    visualize.columns=8                   frames across the sheet
    visualize.layer=3                     layer that the MP4 shows (default: the last one that reduces)
    visualize.video_side=1280             larger videos are scaled down to this longer side in the MP4
    visualize.max_clips=100               of a longer video so many clips are run, evenly spread; gaps stay unpainted
    model.reduction.evit.keep_rate=0.5    look at another reduction with the same weights
"""

from __future__ import annotations

from stvideo.inference.inputs import collect_videos, for_each, output_folder, output_names
from stvideo.inference.pictures import save_pictures
from stvideo.inference.predictor import load_predictor
from stvideo.settings import cli


def main(argv: list[str] | None = None) -> int:
    """Run the command. Returns its exit status."""
    positional, overrides = cli.split_arguments(argv, __doc__ or "")
    videos = collect_videos(positional, "visualize")
    predictor = load_predictor(overrides)
    folder = output_folder(overrides, "visualize writes pictures")
    names = output_names(videos)
    return for_each(
        videos, lambda video: save_pictures(video, predictor, folder, names[video]), "visualised", predictor.config
    )


if __name__ == "__main__":
    cli.run(main)
