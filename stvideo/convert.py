"""Turn any known checkpoint into this package's safetensors or into ONNX, with a model card beside it.

    python -m stvideo.convert TimeSformer_divST_8x32_224_K400.pyth timesformer_k400.safetensors
    python -m stvideo.convert deit_small_patch16_224.pth deit_small.safetensors classes=imagenet_classes.txt
    python -m stvideo.convert evit.pth evit.safetensors model=evit_deit_small_patch16_224 keep_rate=0.7
    python -m stvideo.convert runs/k400_stvit best.safetensors
    python -m stvideo.convert runs/k400_stvit best.onnx
    python -m stvideo.convert evit_deit_small_patch16_224 speed_only.onnx keep_rate=0.5

The source is a run folder, a .safetensors file of this package, or an upstream file: TimeSformer, DeiT, EViT, LV-ViT,
timm's ViT and Swin, official Swin, STViT-R, torchvision's swin3d. Its model is told from names and shapes of the
weights; model=NAME names it where that cannot work. Files are read without running any code from them. The result is
loaded and compared with the source before the command ends. TARGET.md says what the file is.

A target ending in .onnx is the network for other runtimes (pip install 'stvideo[onnx]'): input "clip", float32 (batch,
3, frames, height, width), of the model's own size but any batch; output "logits". Class names, preprocessing and model
are in the file's metadata under "stvideo", as JSON. It is written only if ONNX Runtime gives the model's own logits
for random clips. For trying out a runtime's speed the source may be the name of a model; its weights are random then.

    model=NAME               one of stvideo.list_models()
    ARGUMENT=VALUE           any argument of the model: img_size, num_frames, layer_scale, keep_rate of a variant, ...
    classes=FILE             class names, one a line, in the order of the outputs
    mean=[..] std=[..] color_order=bgr sampling=segment stride=2 target_fps=25
                             how clips are prepared, where the published way is not what these weights saw
    overwrite=false          replace an existing target
    plugins=[MODULE]         modules with models and reductions of one's own
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from stvideo.core.errors import StvideoError
from stvideo.data.clips.preprocessing import Preprocessing
from stvideo.data.lists.text_files import read_text
from stvideo.settings import cli
from stvideo.settings.config import load_config
from stvideo.settings.plugins import take_plugins
from stvideo.weights.conversion import ONNX_SUFFIX, Request, convert

OF_THE_MODEL = ("num_frames", "img_size")  # preprocessing that is decided by the model's own arguments


def main(argv: list[str] | None = None) -> int:
    """Run the command. Returns its exit status."""
    positional, given = cli.split_arguments(argv, __doc__ or "")
    overrides = take_plugins(given)
    if len(positional) != 2:
        raise StvideoError(
            f"python -m stvideo.convert takes a source and a target, got {len(positional)}: {' '.join(positional)}; "
            "example: python -m stvideo.convert weights.pth model.safetensors"
        )
    source, target = positional
    request = read_request(overrides)
    if target.endswith(ONNX_SUFFIX):
        print(f"{target}: tracing the model, then comparing it with ONNX Runtime (some minutes if large)", flush=True)
    result = convert(source, target, request)
    if result.difference is not None:
        print(f"{target}: ONNX Runtime's logits of random clips are within {result.difference:.1e} of torch's")
    print(result.report.summary())
    print(f"written: {', '.join(map(str, result.files))}")
    return 0


def read_request(overrides: Sequence[str]) -> Request:
    """Sort ``key=value`` into what is the model's, the preprocessing's and the command's own.

    Raises:
        StvideoError: a value that cannot be read.
    """
    request = Request()
    for text in overrides:
        key, _, raw = text.partition("=")
        try:
            value = yaml.safe_load(raw)
        except yaml.YAMLError:
            raise StvideoError(f"the command line: cannot read the value of {text!r}") from None
        if key == "model":
            request.model = str(value)
        elif key == "overwrite":
            if not isinstance(value, bool):
                raise StvideoError(f"the command line: {text}: expected true or false")
            request.overwrite = value
        elif key == "classes":
            request.classes = read_classes(Path(raw))
        elif key in Preprocessing.names() and key not in OF_THE_MODEL:
            request.preprocess[key] = getattr(load_config(overrides=[f"data.{text}"]).data, key)
        else:
            request.arguments[key] = value
    return request


def read_classes(path: Path) -> list[str]:
    """Read class names, one a line; raises `StvideoError` if there are none."""
    names = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if not names:
        raise StvideoError(f"classes={path}: the file names no classes")
    return names


if __name__ == "__main__":
    cli.run(main)
