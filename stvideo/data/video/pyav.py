"""Read exact frames with PyAV: the right ones whatever the file's structure, decoding as little as possible.

Two things make it quick. Decoding starts at the last key frame before a wanted frame, or goes on from where it stands.
And frames that neither are wanted nor serve as a reference for others (most B-frames) are not decoded at all.

Files lie about their key frames and times. So a seek counts only if it leads to an intra-coded picture with the time
stamp that was sought, and frames come out in the order of their times; else all is decoded and counted from the start.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import PictureType

from stvideo.data.video.display import Display, Orientation
from stvideo.data.video.packets import DAMAGE, PacketIndex, UnreadableVideo, naming, open_container

SKIPPING_CODECS = ("h264", "hevc")  # FFmpeg's own decoders, which can be told to skip packet by packet
INTRA = frozenset({PictureType.I, PictureType.SI, PictureType.BI})
MAX_REORDERING = 64  # packets; no codec here stores a frame farther from its place in display order


class PyavReader:
    """Decode chosen frames of an opened container. It may be read from several times, in any order.

    Args:
        timeout: seconds from now on after which reading ends with `UnreadableVideo`.
        seeks: whether seeking is tried at all.

    Attributes:
        seeks: whether it was right so far.
    """

    def __init__(
        self, path: str | Path, container: Any, stream: Any, index: PacketIndex, timeout: float, seeks: bool = True
    ) -> None:
        self.path, self.container, self.stream, self.index = path, container, stream, index
        self.seeks = seeks and index.timed
        self.deadline = time.monotonic() + timeout
        self.display = Display(index.pixel_size)

    def read(self, indices: Sequence[int], size: tuple[int, int] | None) -> np.ndarray:
        """Read frames ``indices`` as uint8 (T, H, W, 3); ``size`` is (height, width) as displayed."""
        wanted = self.index.pts[np.asarray(indices, dtype=np.int64)].tolist()
        frames = self._by_time(wanted, size) if self.seeks else {}
        if all(time_stamp in frames for time_stamp in wanted):
            return np.stack([frames[time_stamp] for time_stamp in wanted])
        # No usable time stamps, or frames that only a decoder which saw the whole past can show.
        frames = self._by_counting(set(indices), size)
        missing = [index for index in indices if index not in frames]
        if missing:
            raise UnreadableVideo(
                self.path, f"frame {missing[0]} of {self.index.num_frames} cannot be decoded (damaged or cut short)"
            )
        return np.stack([frames[index] for index in indices])

    def _by_time(self, wanted: list[int], size: tuple[int, int] | None) -> dict[int, np.ndarray]:
        """Read frames by time stamp, leaving out those that do not come out of the decoder or cannot be trusted."""
        found: dict[int, np.ndarray] = {}
        groups: dict[int, set[int]] = {}
        for time_stamp in wanted:
            group = int(np.searchsorted(self.index.key_pts, time_stamp, side="right")) - 1
            groups.setdefault(max(group, 0), set()).add(time_stamp)
        for group, targets in sorted(groups.items()):
            start, newest = int(self.index.key_pts[group]), None
            for frame in self._decode_from(start, targets):
                if frame.pts is None or (newest is not None and frame.pts <= newest):
                    self.seeks = False  # time stamps are no times of display
                elif frame.pts >= start and (newest is None or newest < start):
                    self.seeks = frame.pts == start and is_intra(frame)
                if not self.seeks:
                    return {}
                newest = frame.pts
                if frame.pts in targets and not frame.is_corrupt:
                    found[frame.pts] = self.display.rgb(frame, size)
                    if targets <= found.keys():
                        break
        return found

    def _decode_from(self, start: int, wanted: set[int]) -> Iterator[Any]:
        """Decode frames from the key frame at time ``start`` on, skipping what is not needed for ``wanted``."""
        context = self.stream.codec_context
        skipping = self.index.codec in SKIPPING_CODECS
        to_feed, last, past_the_end, first = set(wanted), max(wanted), 0, True
        with naming(self.path):
            try:
                self.container.seek(start, stream=self.stream, backward=True, any_frame=False)
                for packet in self.container.demux(self.stream):
                    self._check_time()
                    if first and packet.pts is not None and packet.pts > start:
                        return  # some containers cannot seek exactly
                    first = False
                    if skipping:
                        needed = packet.pts is None or not packet.size or packet.pts in wanted
                        context.skip_frame = "DEFAULT" if needed else "NONREF"
                    hidden = packet.is_discard and packet.pts == start  # by an edit list; the seek is judged by it
                    yield from context.decode(_unhidden(packet) if hidden else packet)
                    if not packet.size:
                        return  # the end of the file, at which the decoder has given everything
                    to_feed.discard(packet.pts)
                    # Packets well past the last wanted one cannot precede it in display order any more.
                    past_the_end = past_the_end + 1 if packet.pts is not None and packet.pts > last else 0
                    if not to_feed or past_the_end > MAX_REORDERING:
                        # The decoder holds frames back to put them in order: ask for them instead of feeding it more.
                        yield from context.decode(None)
                        return
            except (av.error.InvalidDataError, av.error.EOFError):
                return  # damaged, or not decodable from here: the caller starts again from the beginning
            finally:
                if skipping:
                    context.skip_frame = "DEFAULT"

    def _by_counting(self, wanted: set[int], size: tuple[int, int] | None) -> dict[int, np.ndarray]:
        """Read frames by their number, decoding everything from the start of the file."""
        found: dict[int, np.ndarray] = {}
        for number, frame in frames_in_order(self.path, self.index, self._check_time):
            if number in wanted and not frame.is_corrupt:
                found[number] = self.display.rgb(frame, size)
            if len(found) == len(wanted) or (not self.index.timed and number >= max(wanted)):
                break
        return found

    def _check_time(self) -> None:
        if time.monotonic() > self.deadline:
            raise UnreadableVideo(self.path, "decoding took longer than the time limit (data.timeout)")


def is_intra(frame: Any) -> bool:
    """Whether a picture was decoded without others; a decoder that does not tell kinds of pictures tells key frames."""
    return frame.pict_type in INTRA or (frame.pict_type == PictureType.NONE and frame.key_frame)


def _unhidden(packet: Any) -> Any:
    """The same packet without the mark that the decoder is not to give its frame away."""
    copy = av.Packet(bytes(packet))
    copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
    return copy


def frames_in_order(
    path: str | Path, index: PacketIndex, on_packet: Callable[[], None] = lambda: None
) -> Iterator[tuple[int, Any]]:
    """Decode every frame, with its number, from the start of the file; -1 is one that ``index`` does not know.

    ``on_packet`` is called before each packet. Raises `UnreadableVideo` where the file is damaged: what follows would
    be decoded from wrong references.
    """
    known = {time_stamp: number for number, time_stamp in enumerate(index.pts.tolist())} if index.timed else None
    count = 0
    container, stream = open_container(path)  # afresh: not every container can seek to its start
    with container, naming(path), contextlib.suppress(av.error.EOFError):
        for packet in container.demux(stream):
            on_packet()
            try:
                decoded = packet.decode()
            except av.error.InvalidDataError:
                if count:
                    raise
                continue
            for frame in decoded:
                yield (count if known is None else known.get(frame.pts, -1)), frame
                count += 1


def find_orientation(path: str | Path, container: Any, stream: Any, index: PacketIndex) -> Orientation:
    """Tell how the frames are displayed by the first one; raises `UnreadableVideo` if it cannot be decoded."""
    with contextlib.suppress(*DAMAGE):  # not every container can seek to its start, nor does every frame there decode
        container.seek(0, backward=True)
        for frame in container.decode(stream):
            return Display().orientation(frame)
    with naming(path):
        for _, frame in frames_in_order(path, index):
            return Display().orientation(frame)
    raise UnreadableVideo(path, "no frame can be decoded")
