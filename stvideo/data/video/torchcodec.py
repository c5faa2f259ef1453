"""Read frames by torchcodec, where it and FFmpeg's shared libraries are installed. The only module that imports it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from stvideo.data.video.display import scale_frames
from stvideo.data.video.packets import PacketIndex, UnreadableVideo, one_line


@cache
def torchcodec_problem() -> str | None:
    """Say why torchcodec cannot be used here; None if it can."""
    try:
        from torchcodec.decoders import VideoDecoder  # noqa: F401
    except ImportError:
        return "torchcodec is not installed: pip install torchcodec, or set data.decoder=auto"
    except (OSError, RuntimeError):
        return "torchcodec needs FFmpeg 4 to 9 as shared libraries: install FFmpeg, or set data.decoder=auto"
    return None


def torchcodec_errs(index: PacketIndex) -> bool:
    """Tell whether torchcodec is known to return wrong frames of such a file, or none: it seeks by time stamps.

    MPEG streams have no index to seek with, and AVI stores the order of decoding instead of times.
    """
    kinds = index.container.split(",")
    return not index.timed or "mpegts" in kinds or "mpeg" in kinds or ("avi" in kinds and index.reordered)


def read_torchcodec(path: Path, indices: list[int], size: tuple[int, int] | None, num_frames: int) -> np.ndarray:
    """Read frames ``indices`` as uint8 (T, H, W, 3); ``size`` is (height, width).

    Raises:
        UnreadableVideo: damaged, or torchcodec counts other frames than the ``num_frames`` that the packets hold.
    """
    from torchcodec.decoders import VideoDecoder

    try:
        decoder = VideoDecoder(str(path.absolute()), dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact")
        if len(decoder) != num_frames:
            raise UnreadableVideo(path, f"torchcodec counts {len(decoder)} frames of {num_frames}")
        frames = decoder.get_frames_at(indices=indices).data.numpy()
    except UnreadableVideo:
        raise
    except (RuntimeError, ValueError, IndexError) as error:
        raise UnreadableVideo(path, f"torchcodec: {one_line(error)[-160:]}") from None
    return frames if size is None else scale_frames(frames, size)
