"""Write one self-contained web page per video: scrub through time and layers, point at a patch, see its token."""

from __future__ import annotations

import base64
import html
import io
import json
import re
from collections.abc import Sequence
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stvideo.drawing import overlay
from stvideo.drawing.geometry import PatchArea, fit
from stvideo.drawing.states import DROPPED, LayerStates

FRAME_BOX = (720, 540)  # pixels of the large frame; smaller videos are enlarged by whole numbers
THUMBNAIL_BOX = (160, 160)
JPEG_QUALITY = 88


def draw_page(
    frames: NDArray[np.uint8],
    states: Sequence[LayerStates],
    area: PatchArea,
    title: str,
    subtitle: str = "",
    predictions: Sequence[tuple[str, float]] = (),
    frame_labels: Sequence[str] | None = None,
    frame_numbers: Sequence[int] | NDArray[np.int64] | None = None,
) -> str:
    """Write the page of one clip as HTML, with everything in it: no other file and no network is needed.

    Args:
        frames: (F, h, w, 3) uint8 RGB frames that the model saw, uncropped.
        states: the layers, from `layer_states`.
        area: where the patch grid lies on the frames (of this or another size).
        title, subtitle: the lines above the picture.
        predictions: class names with probabilities, best first.
        frame_labels, frame_numbers: what to call each of the F frames.

    Raises:
        StvideoError: the patch grid covers fewer than F frames.
    """
    count, height, width = frames.shape[:3]
    numbers = [int(n) for n in frame_numbers] if frame_numbers is not None else list(range(count))
    scale = min(FRAME_BOX[0] // width, FRAME_BOX[1] // height)
    area = area.scaled(width, height)
    data = {
        "frames": [_data_url(frame) for frame in frames],
        "frame_labels": list(frame_labels) if frame_labels is not None else [f"frame {n}" for n in numbers],
        "frame_numbers": numbers,
        "size": (width * scale, height * scale) if scale >= 1 else fit(width, height, *FRAME_BOX),
        "thumbnail": fit(width, height, *THUMBNAIL_BOX),
        "area": {**vars(area), "covers_frame": area.covers_frame},
        "layers": [_layer(row, count) for row in states],
        "predictions": predictions,
        "style": {
            "dropped": overlay.DROPPED_LIGHT,
            "fused": overlay.FUSED_STRENGTH,
            "shared": overlay.SHARED_STRENGTH,
            "through_fused": overlay.THROUGH_FUSED,
            "outside_gray": overlay.OUTSIDE_GRAY,
            "outside_strength": overlay.OUTSIDE_STRENGTH,
        },
    }
    # Inside a script element only "</" and "<!--" could end or change it; neither survives this.
    embedded = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    parts = {
        "@TITLE@": html.escape(title),
        "@SUBTITLE@": html.escape(subtitle),
        "@CSS@": _resource("page.css"),
        "@JS@": _resource("page.js"),
        "@DATA@": embedded,
    }
    # In one pass, so that no value is searched for further marks.
    return re.sub("|".join(parts), lambda mark: parts[mark[0]], _resource("page.html"))


def _layer(row: LayerStates, num_frames: int) -> dict[str, Any]:
    """Write one layer as flat lists over (T, H, W), and the time step of each frame."""
    palette, color = np.unique(row.color.reshape(-1, 3), axis=0, return_inverse=True)
    name = row.name if row.layer == "output" else f"{row.name} · {row.method}"
    return {
        "title": name + (" (output)" if row.is_output and row.layer != "output" else ""),
        "count": row.count,
        "step_of_frame": [row.step_of(frame) for frame in range(num_frames)],
        "tubelet_size": row.tubelet_size,
        "rows": row.token.shape[1],
        "columns": row.token.shape[2],
        "token": row.token.ravel().tolist(),
        "state": row.state.ravel().tolist(),
        "fused": row.fused.ravel().astype(int).tolist(),
        "palette": palette.tolist(),
        "color": color.ravel().tolist(),
        **_scores(row),
    }


def _scores(row: LayerStates) -> dict[str, Any]:
    """Give scores, and those of the darkest and the palest heat; a fused token, which sums up many, may lie above."""
    if row.score is None:
        return {"score": None}
    score = np.nan_to_num(row.score)
    alone = score[(row.state != DROPPED) & ~row.fused]
    lowest, highest = score.min(), (alone if alone.size else score).max()
    values = [float(f"{value:.4g}") for value in (lowest, highest, *score.ravel())]
    return {"lowest": values[0], "highest": values[1], "score": values[2:]}


def _data_url(frame: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _resource(name: str) -> str:
    return resources.files("stvideo.drawing").joinpath(name).read_text(encoding="utf-8")
