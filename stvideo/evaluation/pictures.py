"""The pictures that an evaluation leaves beside its numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stvideo.data.video.decode import UnreadableVideo, open_video
from stvideo.drawing.confusion import confusion_matrix, plot_confusion, plot_videos, telling_videos

FRAME_SIDE = 240  # pixels of the shorter side of the frames that are shown


def write_evaluation_pictures(
    folder: Path,
    scores: NDArray[np.float32],
    truth: NDArray[np.int64],
    classes: Sequence[str],
    path_of: Callable[[int], Path],
    title: str = "",
) -> list[Path]:
    """Write confusion.png and, if there are mistakes, worst_classes.png.

    Args:
        scores: (V, K) class probabilities per video.
        truth: (V,) true classes.
        classes: K names.
        path_of: gives the file of row v of ``scores``; its middle frame is shown.
        title: what was measured, e.g. the checkpoint.

    Returns:
        The files written.

    Raises:
        StvideoError: a file cannot be written.
    """

    confusion, worst = folder / "confusion.png", folder / "worst_classes.png"
    plot_confusion(confusion, confusion_matrix(truth, scores.argmax(axis=1), len(classes)), classes, title)
    chosen = telling_videos(scores, truth)
    if not chosen:
        worst.unlink(missing_ok=True)  # of an earlier, worse evaluation
        return [confusion]
    found = {row: _middle_frame(path_of(row)) for rows in chosen.values() for row in rows}
    frames = {row: frame for row, frame in found.items() if frame is not None}
    plot_videos(worst, chosen, frames, scores, truth, classes, f"Worst classes: {title}" if title else "Worst classes")
    return [confusion, worst]


def _middle_frame(path: Path) -> NDArray[np.uint8] | None:
    try:
        with open_video(path) as video:
            size = FRAME_SIDE if video.short_side > FRAME_SIDE else None
            return video.read([video.num_frames // 2], size=size)[0].numpy()
    except UnreadableVideo:
        return None  # the evaluation has told already, or the file has gone since
