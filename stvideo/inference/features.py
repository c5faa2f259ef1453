"""Save features of videos as arrays on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save
from torch import Tensor

from stvideo.core.files import replacing
from stvideo.data.video.decode import Readable, seconds_at
from stvideo.inference.predictor import Predictor
from stvideo.inference.timeline import timeline_windows
from stvideo.models.base import Backbone


def save_features(path: Path, predictor: Predictor, folder: Path, name: str, per_window: bool = False) -> list[Path]:
    """Write NAME_features.npz (or .safetensors) with the features of the middle clip, centre crop; see `extract`.

    Besides the features the file holds ``frames`` (T,), the frames of the video that the model saw. ``per_window``:
    the features of every window of the timeline instead; all arrays then have the window as their first dimension, and
    ``seconds`` (W, 2) says from when to when each reaches.

    Raises:
        StvideoError: the video cannot be read, the file not written, or the model has no such features.
    """
    file_format = predictor.config.predict.feature_format
    with predictor.open(path) as video:
        arrays = (of_windows if per_window else of_middle_clip)(video, predictor)
    target = folder / f"{name}_features.{file_format}"
    with replacing(target) as temporary, temporary.open("wb") as file:
        if file_format == "npz":
            np.savez_compressed(file, allow_pickle=False, **arrays)
        else:  # not save_file, which has an error of its own for a full disk
            file.write(save({key: np.ascontiguousarray(value) for key, value in arrays.items()}))
    return [target]


def of_middle_clip(video: Readable, predictor: Predictor) -> dict[str, NDArray[Any]]:
    """Extract features of the one clip that stands for the whole video, with its ``frames`` (T,)."""
    indices = predictor.indices(video.info, video.times)
    kind = predictor.config.predict.features or "clip"
    features = extract(predictor.model, predictor.read_clip(video, indices), kind)
    return {**features, "frames": np.asarray(indices)}


def of_windows(video: Readable, predictor: Predictor) -> dict[str, NDArray[Any]]:
    """Extract features of every window of the timeline (W, ...), with its ``frames`` (W, T) and ``seconds`` (W, 2)."""
    windows, kind = timeline_windows(predictor, video.info), predictor.config.predict.features or "clip"
    parts = [extract(predictor.model, clip, kind) for clip in predictor.read_windows(video, windows)]
    return {
        **{key: np.stack([part[key] for part in parts]) for key in parts[0]},
        "frames": np.stack([window.indices for window in windows]),
        "seconds": seconds_at(video, np.array([(window.begin, window.end) for window in windows])),
    }


@torch.inference_mode()
def extract(model: Backbone, clip: Tensor, kind: str) -> dict[str, NDArray[Any]]:
    """Extract features of one clip (1, 3, T, S, S).

    Those of tokens come after the network's last norm; a network of stages (Swin) gives the tokens of the stage whose
    patches its trace follows, before any norm.

    Args:
        kind: ``clip``: ``feature`` (C,), what the classification head reads;
            ``frame``: ``feature`` (T, C), the mean over the patches of each frame, of those that are left;
            ``token``: ``feature`` (N, C), one row per token, and ``assign`` (T, H, W) the row that carries each patch,
            -1 if it was dropped;
            ``map``: ``feature`` (T, H, W, C), each patch with the feature of the token that carries it, 0 if dropped,
            and ``assign`` as above. After a recovery every patch has its own.
    """
    every_row, trace, features = model.token_features(clip)
    rows, feature = every_row[0].float().cpu().numpy(), features[0].float().cpu().numpy()
    assign = trace.assign["output"][0].cpu().numpy()
    if kind == "clip":
        return {"feature": feature}
    if kind == "token":
        return {"feature": rows, "assign": assign}
    alive = assign >= 0
    full = np.where(alive[..., None], rows[assign.clip(min=0)], np.float32(0))
    if kind == "map":
        return {"feature": full, "assign": assign}
    count = alive.sum(axis=(1, 2))[:, None].astype(np.float32)
    return {"feature": full.sum(axis=(1, 2)) / np.maximum(count, 1)}
