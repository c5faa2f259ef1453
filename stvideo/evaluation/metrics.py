"""From the scores of single views to the accuracy of whole videos. Pure NumPy, so that it is easy to check."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stvideo.core.errors import StvideoError


@dataclass
class Predictions:
    """One row per video, ordered by video id.

    Attributes:
        index: (V,) int64 video ids.
        truth: (V,) int64 class ids.
        scores: (V, K) float32 class probabilities of each video, from the average over its views.
    """

    index: NDArray[np.int64]
    truth: NDArray[np.int64]
    scores: NDArray[np.float32]

    def top_k(self, k: int) -> NDArray[np.int64]:
        """Rank the best classes, (V, min(k, K)) ids, best first; equal scores in the order of the class ids."""
        return np.argsort(-self.scores, axis=1, kind="stable")[:, :k]

    def hits(self, k: int = 1) -> NDArray[np.bool_]:
        """Tell for each video (V,) whether the true class is among the ``k`` best."""
        hits: NDArray[np.bool_] = (self.top_k(k) == self.truth[:, None]).any(axis=1)
        return hits

    def accuracy(self, k: int = 1) -> float:
        """Share of the videos whose true class is among the ``k`` best, in per cent."""
        return 100.0 * float(self.hits(k).mean())

    def metrics(self) -> dict[str, float]:
        """Top-1 and top-5 in per cent; below five classes "top5" counts all of them, and is 100."""
        return {"top1": self.accuracy(1), "top5": self.accuracy(5)}


def merge_views(
    index: NDArray[np.int64],
    view: NDArray[np.int64],
    truth: NDArray[np.int64],
    scores: NDArray[np.float32],
    *,
    num_videos: int,
    num_views: int,
    average: str = "softmax",
) -> Predictions:
    """Average the scores of the views of each video.

    The rows may come in any order and from any number of processes; each (video, view) must come exactly once.

    Args:
        index, view, truth: (R,) video id, view number and class id of each row.
        scores: (R, K) softmax scores, or logits.
        num_videos, num_views: how many videos, and views of each, there have to be.
        average: which of the two ``scores`` are: ``softmax``, or ``logits``, whose mean then goes through a softmax.

    Raises:
        StvideoError: a view is missing or came twice, or a score is not a number.
    """
    if not np.isfinite(scores).all():
        raise StvideoError("evaluation: the model's scores are not finite; its weights have diverged")
    order = np.lexsort((view, index))
    index, view, truth, scores = index[order], view[order], truth[order], scores[order]
    pairs = index * (int(view.max(initial=0)) + 1) + view
    unique = len(np.unique(pairs))
    if unique != len(pairs):
        raise StvideoError(f"evaluation: {len(pairs) - unique} views came twice; the merged accuracy would be wrong")
    if len(pairs) != num_videos * num_views:
        raise StvideoError(
            f"evaluation: {len(pairs)} of {num_videos} x {num_views} views arrived; the accuracy would not be the set's"
        )
    videos, first, counts = np.unique(index, return_index=True, return_counts=True)
    if (counts != num_views).any():
        raise StvideoError(f"evaluation: video {videos[counts != num_views][0]} does not have {num_views} views")
    mean = scores.reshape(len(videos), num_views, -1).mean(axis=1, dtype=np.float64)
    if average == "logits":
        mean = np.exp(mean - mean.max(axis=1, keepdims=True))
        mean /= mean.sum(axis=1, keepdims=True)
    return Predictions(index=videos, truth=truth[first], scores=mean.astype(np.float32))
