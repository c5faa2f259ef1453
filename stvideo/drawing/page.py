"""One self-contained web page per video: scrub through time and layers, point at a patch, see its token."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stvideo.core.files import write_atomically
from stvideo.drawing.geometry import Crop, fit
from stvideo.drawing.overlay import (
    DROPPED_LIGHT,
    FUSED_STRENGTH,
    OUTSIDE_GRAY,
    OUTSIDE_STRENGTH,
    SHARED_STRENGTH,
)
from stvideo.drawing.states import DROPPED, LayerStates

FRAME_BOX = (720, 540)  # pixels of the large frame; smaller videos are enlarged by whole numbers
THUMBNAIL_BOX = (160, 160)
JPEG_QUALITY = 88


def draw_page(
    frames: NDArray[np.uint8],
    states: Sequence[LayerStates],
    crop: Crop,
    title: str,
    subtitle: str = "",
    predictions: Sequence[tuple[str, float]] = (),
    frame_labels: Sequence[str] | None = None,
    frame_numbers: Sequence[int] | NDArray[np.int64] | None = None,
) -> str:
    """The page of one clip as HTML, with everything in it: no other file and no network is needed.

    Args:
        frames: (T, h, w, 3) uint8 RGB frames that the model saw, uncropped.
        states: the layers, from `layer_states`.
        crop: where the patch grid lies on the frames (of this or another size).
        predictions: class names with probabilities, best first.
        frame_labels, frame_numbers: what to call each of the T frames.
    """
    count, height, width = frames.shape[:3]
    numbers = [int(n) for n in frame_numbers] if frame_numbers is not None else list(range(count))
    scale = min(FRAME_BOX[0] // width, FRAME_BOX[1] // height)
    size = (width * scale, height * scale) if scale >= 1 else fit(width, height, *FRAME_BOX)
    crop = crop.scaled(width, height)
    data = {
        "frames": [_data_url(frame) for frame in frames],
        "frame_labels": list(frame_labels) if frame_labels is not None else [f"frame {n}" for n in numbers],
        "frame_numbers": numbers,
        "size": size,
        "thumbnail": fit(width, height, *THUMBNAIL_BOX),
        "crop": {**vars(crop), "covers_frame": crop.covers_frame},
        "layers": [_layer(row) for row in states],
        "predictions": [[name, probability] for name, probability in predictions],
        "style": {
            "dropped": DROPPED_LIGHT,
            "fused": FUSED_STRENGTH,
            "shared": SHARED_STRENGTH,
            "outside_gray": OUTSIDE_GRAY,
            "outside_strength": OUTSIDE_STRENGTH,
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
    page = _resource("page.html")
    pieces = []
    while page:  # one pass, so that no value is searched for further marks
        found = min(((page.find(mark), mark) for mark in parts if mark in page), default=None)
        if found is None:
            pieces.append(page)
            break
        place, mark = found
        pieces += [page[:place], parts[mark]]
        page = page[place + len(mark) :]
    return "".join(pieces)


def save_page(page: str, path: Path) -> None:
    """Write a page, to a temporary name first."""
    write_atomically(path, page)


def _layer(row: LayerStates) -> dict[str, Any]:
    """One layer as flat lists over (T, H, W)."""
    frames, rows, columns = row.token.shape
    palette, color = np.unique(row.color.reshape(-1, 3), axis=0, return_inverse=True)
    name = "output" if row.layer == "output" else f"layer {row.layer} · {row.method}"
    share = f" ({row.num_tokens / row.num_patches:.0%})" if row.reduces else ""
    score = None if row.score is None else [float(f"{s:.4g}") for s in np.nan_to_num(row.score).ravel()]
    return {
        "title": name + (" (output)" if row.is_output and row.layer != "output" else ""),
        "count": f"{row.num_tokens:,} tokens{share}",
        "frames": frames,
        "rows": rows,
        "columns": columns,
        "token": row.token.ravel().tolist(),
        "state": row.state.ravel().tolist(),
        "fused": row.fused.ravel().astype(int).tolist(),
        "palette": palette.tolist(),
        "color": color.ravel().tolist(),
        "score": score,
        **_score_range(row),
    }


def _score_range(row: LayerStates) -> dict[str, float | None]:
    """Scores that get the darkest and the palest heat; a fused token, which sums up many, may lie above."""
    if row.score is None:
        return {"lowest": None, "highest": None}
    score = np.nan_to_num(row.score)
    scored = score[score > 0]
    alone = score[(row.state != DROPPED) & ~row.fused]
    highest = float(alone.max()) if alone.size else float(score.max())
    lowest = min(float(scored.min()), highest) if scored.size else 0.0
    return {"lowest": float(f"{lowest:.3g}"), "highest": float(f"{highest:.3g}")}


def _data_url(frame: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _resource(name: str) -> str:
    return resources.files("stvideo.drawing").joinpath(name).read_text(encoding="utf-8")
