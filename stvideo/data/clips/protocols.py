"""Evaluation protocols by name: what ``evaluate.views=k400-1x3`` fixes, and where it comes from.

A name fixes the views (clips x crops), the way of sampling, the official split that the number is about, and which
frames each clip takes: a published protocol takes those of the released code, frame for frame
(`stvideo.data.clips.published`), counting frames whatever their times. Frames, stride and crop size are the model's
own and come from its checkpoint.

In the others (``-even``, ``-middle``, and any ``CLIPSxCROPS``, which is a protocol without a name) one clip lies in the
middle, and several evenly from the first to the last start (``data.sampling=stride``) or at different places of each
segment (``segment``), see `stvideo.data.clips.sampling`. Nothing is ever flipped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from stvideo.core.errors import StvideoError, nearest
from stvideo.data.clips import published


@dataclass(frozen=True)
class Split:
    """An official validation split: its name, how many classes and how many videos it has."""

    name: str
    classes: int
    videos: int


K400 = Split("Kinetics-400 validation", 400, 19_881)
SSV2 = Split("Something-Something V2 validation", 174, 24_777)


@dataclass(frozen=True)
class Protocol:
    """How a video is measured.

    Attributes:
        name: as it is given.
        clips, crops: views per video; crops are squares along the longer side.
        sampling: the way of sampling that it demands; None: the checkpoint's.
        split: the official split that it is about, if any.
        source: who measures so.
        rule: which frames a clip takes; None: those of `stvideo.data.clips.sampling.frame_indices`.
    """

    name: str
    clips: int
    crops: int
    sampling: str | None = None
    split: Split | None = None
    source: str = ""
    rule: published.Rule | None = None

    @property
    def views(self) -> str:
        """``"1x3"``."""
        return f"{self.clips}x{self.crops}"

    @property
    def title(self) -> str:
        """``"k400-1x3 (1x3 views)"``; for bare views only those."""
        return f"{self.views} views" if self.name == self.views else f"{self.name} ({self.views} views)"

    def check_sampling(self, sampling: str, key: str = "evaluate.views") -> None:
        """Refuse a model that reads videos in another way than the protocol says.

        Raises:
            StvideoError: what to give instead.
        """
        if self.sampling is not None and sampling != self.sampling:
            raise StvideoError(
                f"{key}={self.name} is a protocol of data.sampling={self.sampling}, and this model was trained with "
                f"data.sampling={sampling}; give {key}={self.views} to use these views all the same, or "
                f"data.sampling={self.sampling} to read videos as the protocol does"
            )

    def split_for(self, num_classes: int) -> Split | None:
        """Return the official split, if the data have its classes."""
        return self.split if self.split is not None and self.split.classes == num_classes else None


MOST_VIEWS = 1000  # of each kind; published protocols have up to 30 views in all

PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("center", 1, 1, source="one clip from the middle, its centre"),
        Protocol("k400-1x3", 1, 3, "stride", K400, "TimeSformer, arXiv 2102.05095", published.timesformer_kinetics),
        Protocol("k400-4x3", 4, 3, "stride", K400, "Video Swin, arXiv 2106.13230", published.video_swin_kinetics),
        Protocol(
            "k400-4x3-mmaction2", 4, 3, "stride", K400, "Video Swin in mmaction2 1.x", published.mmaction2_kinetics
        ),
        Protocol("k400-5x3", 5, 3, "stride", K400, "VideoMAE, arXiv 2203.12602", published.videomae_kinetics),
        Protocol("k400-1x3-middle", 1, 3, "stride", K400, "the middle of the video"),
        Protocol("k400-4x3-even", 4, 3, "stride", K400, "evenly from the first to the last start"),
        Protocol("k400-5x3-even", 5, 3, "stride", K400, "evenly from the first to the last start"),
        Protocol("ssv2-1x3", 1, 3, "segment", SSV2, "TimeSformer, arXiv 2102.05095"),
        Protocol("ssv2-2x3", 2, 3, "segment", SSV2, "VideoMAE, arXiv 2203.12602", published.videomae_something),
        Protocol("ssv2-2x3-middle", 2, 3, "segment", SSV2, "the middle and the first frame of each segment"),
    )
}


def find_protocol(text: str, key: str = "views") -> Protocol:
    """Find the protocol of a name or of ``CLIPSxCROPS``; ``key`` is the setting that errors speak of.

    Raises:
        StvideoError: neither.
    """
    name = str(text).strip()
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    match = re.fullmatch(r"(\d+)\s*[x×]\s*(\d+)", name)
    if match is None:
        raise StvideoError(
            f"{key}={name}: expected CLIPSxCROPS, e.g. 1x3, or a protocol ({', '.join(PROTOCOLS)})"
            f"{nearest(name, PROTOCOLS)}"
        )
    clips, crops = int(match[1]), int(match[2])
    if not (1 <= clips <= MOST_VIEWS and 1 <= crops <= MOST_VIEWS):
        raise StvideoError(f"{key}={name}: clips and crops are at least 1 and at most {MOST_VIEWS}")
    return Protocol(f"{clips}x{crops}", clips, crops)


def protocol_table() -> str:
    """List the named protocols as lines of text, for ``--help`` and the README."""
    rows = [
        (p.name, p.views, f"{p.sampling or 'own'} sampling", p.split.name if p.split else "", p.source)
        for p in PROTOCOLS.values()
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)
