"""Read frames by decord, where it is installed. The only module that imports it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from stvideo.data.video.display import scale_frames
from stvideo.data.video.packets import PacketIndex, UnreadableVideo, one_line

_CODECS = frozenset({"h264", "hevc", "vp8", "vp9", "mpeg4"})
_CONTAINERS = frozenset({"mp4", "matroska", "webm", "avi", "flv"})


@cache
def _decord() -> Any:
    """Import decord; None where it is missing, as it has no wheels for some platforms."""
    try:
        import decord
    except (ImportError, OSError):
        return None
    decord.logging.set_level(decord.logging.QUIET)  # its FFmpeg writes to stderr on its own
    return decord


def decord_problem() -> str | None:
    """Say why decord cannot be used here; None if it can."""
    return None if _decord() else "decord is not installed here: pip install decord, or set data.decoder=auto"


def decord_errs(index: PacketIndex) -> bool:
    """Tell whether decord is known to return wrong frames of such a file, to hang on it, or not to open it."""
    unsafe = index.open_gop or index.late_start or not index.timed or index.codec not in _CODECS
    return unsafe or _CONTAINERS.isdisjoint(index.container.split(","))


def read_decord(path: Path, indices: list[int], size: tuple[int, int] | None, num_frames: int) -> np.ndarray:
    """Read frames ``indices`` as uint8 (T, H, W, 3); ``size`` is (height, width).

    Raises:
        UnreadableVideo: damaged, or decord counts other frames than the ``num_frames`` that the packets hold.
    """
    try:
        return _read(path, indices, size, num_frames)
    except (RuntimeError, UnicodeEncodeError, _decord().DECORDError) as error:  # it takes names in UTF-8 only
        reason = one_line(error)
    if size is not None and "size must exactly match" in reason:
        # decord cannot scale to some widths (of 24, 48 or 72 pixels, for one).
        return scale_frames(read_decord(path, indices, None, num_frames), size)
    raise UnreadableVideo(path, f"decord: {reason[-160:]}")


def _read(path: Path, indices: list[int], size: tuple[int, int] | None, num_frames: int) -> np.ndarray:
    height, width = size or (-1, -1)
    # The global bridge is left alone (fork would inherit it); one thread is the fastest per CPU second.
    reader = _decord().VideoReader(str(path.absolute()), width=width, height=height, num_threads=1)
    if reader.get_frame_timestamp(0)[0] < 0:
        raise UnreadableVideo(path, "decord would hang on it (cut without re-encoding): set data.decoder=auto")
    if len(reader) != num_frames:
        raise UnreadableVideo(path, f"decord counts {len(reader)} frames of {num_frames}: set data.decoder=auto")
    unique, places = np.unique(np.asarray(indices), return_inverse=True)
    batch = reader.get_batch(unique)
    frames: np.ndarray = batch.asnumpy() if hasattr(batch, "asnumpy") else np.asarray(batch)  # as others set the bridge
    reader.seek(0)  # without this, memory stays with the process
    del reader
    return frames if np.array_equal(unique, indices) else frames[places]
