"""Classify a camera or a stream while it runs: the newest frames only, late ones dropped, the lag measured."""

from __future__ import annotations

import json
import math
import sys
import threading
import time
from typing import Any, NamedTuple

import av
import numpy as np
import torch
from numpy.typing import NDArray

from stvideo.core.errors import StvideoError
from stvideo.core.messages import logger
from stvideo.data.video.display import Display, quarter_turns
from stvideo.inference.predictor import Predictor, as_dicts

CAMERA, STREAM = "camera:", "stream:"
CAMERA_FORMATS = {"linux": ("v4l2", "/dev/video"), "darwin": ("avfoundation", ""), "win32": ("dshow", "video=")}
SEGMENT_SECONDS = 4.0  # what a model that samples whole videos is shown of a stream, unless predict.window_seconds says
LATE = 0.25  # seconds behind the stream's own clock after which a frame is dropped undecoded into pixels
TIMEOUTS = (10.0, 10.0)  # seconds to open and to read


class LiveFrame(NamedTuple):
    """A frame of a stream: its time on the stream's clock, when it arrived here, and its (H, W, 3) uint8 pixels."""

    seconds: float
    arrived: float
    pixels: NDArray[np.uint8]


def is_stream(argument: str) -> bool:
    """Tell whether a command-line argument means a camera or a stream and not a file."""
    return argument.startswith((CAMERA, STREAM))


class LiveSource:
    """Read a stream in a thread of its own and keep the frames of its last ``span`` seconds.

    A file is played at its own speed, as if it were live.

    Args:
        source: ``camera:NUMBER``, ``camera:DEVICE`` or ``stream:URL_OR_FILE``.
        span: seconds to keep.
        short_side: frames are scaled down to this many pixels on their shorter side.

    Attributes:
        dropped: frames so far that came too late to be looked at.

    Raises:
        StvideoError: there is no such camera or stream.
    """

    def __init__(self, source: str, span: float, short_side: int) -> None:
        self.span, self.short_side = span, short_side
        self.dropped = 0
        self.problem: str | None = None
        self._frames: list[LiveFrame] = []
        self._changed = threading.Condition()
        self._ended = self._stopping = False
        self._display = Display()
        self._container = _open(source)
        self._thread = threading.Thread(target=self._read, name="live source", daemon=True)
        self._thread.start()

    def __enter__(self) -> LiveSource:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._thread.join(timeout=TIMEOUTS[1])
        if not self._thread.is_alive():
            self._container.close()

    def newest(self, after: float = -math.inf) -> list[LiveFrame]:
        """Return the frames of the last ``span`` seconds, once there is one later than ``after`` (stream seconds).

        Returns:
            An empty list when the stream has ended and holds nothing new.
        """

        def is_new() -> bool:
            return bool(self._frames) and self._frames[-1].seconds > after

        with self._changed:
            self._changed.wait_for(lambda: self._ended or is_new())
            return self._frames if is_new() else []

    def _read(self) -> None:
        start: float | None = None  # when, on this machine's clock, second 0 of the stream was
        try:
            for number, frame in enumerate(self._container.decode(video=0)):
                if self._stopping:
                    break
                now = time.monotonic()
                rate = float(self._container.streams.video[0].average_rate or 25)
                seconds = number / rate if frame.time is None else float(frame.time)
                if start is None or start + seconds - now > self.span:
                    start = now - seconds  # it begins, or jumped ahead
                ahead = start + seconds - now
                if ahead > 0:
                    time.sleep(ahead)  # a file is read faster than it plays
                elif -ahead > LATE:
                    self.dropped += 1
                    continue
                self._keep(LiveFrame(seconds, time.monotonic(), self._pixels(frame)))
        except (OSError, ValueError) as error:  # PyAV's errors are one or the other
            self.problem = " ".join(str(error).split())
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _pixels(self, frame: Any) -> NDArray[np.uint8]:
        scale = min(1.0, self.short_side / min(frame.width, frame.height))
        height, width = max(1, round(frame.height * scale)), max(1, round(frame.width * scale))
        size = (width, height) if quarter_turns(frame) % 2 else (height, width)
        return np.ascontiguousarray(self._display.rgb(frame, size))

    def _keep(self, frame: LiveFrame) -> None:
        first, shape = frame.seconds - self.span, frame.pixels.shape  # a stream may change its size
        with self._changed:
            self._frames = [old for old in self._frames if old.seconds >= first and old.pixels.shape == shape] + [frame]
            self._changed.notify_all()


def pick(frames: list[LiveFrame], span: float, count: int) -> list[LiveFrame]:
    """Choose ``count`` frames spread evenly over the last ``span`` seconds; with fewer, the first one repeats."""
    times = np.array([frame.seconds for frame in frames])
    wanted = np.linspace(times[-1] - span, times[-1], count) if count > 1 else times[-1:]
    return [frames[int(np.abs(times - second).argmin())] for second in wanted]


def watch(source: str, predictor: Predictor, as_json: bool) -> int:
    """Print the most probable classes of the newest clip, again and again, until the stream ends or Ctrl-C.

    The lag is the time from the arrival of the newest frame of a clip to its prediction.

    Returns:
        How many clips were classified.

    Raises:
        StvideoError: no such source, or it broke off before its first frame.
    """
    how, count = predictor.preprocessing, predictor.config.top_k
    by_stride = how.stride * how.num_frames / how.target_fps
    span = predictor.config.predict.window_seconds or (by_stride if how.sampling == "stride" else SEGMENT_SECONDS)
    clips, second = 0, -math.inf
    with LiveSource(source, span, how.test_size) as live:
        try:
            while frames := live.newest(second):
                second = frames[-1].seconds
                chosen = torch.from_numpy(np.stack([frame.pixels for frame in pick(frames, span, how.num_frames)]))
                clip = predictor.prepare(chosen.flip(-1) if how.color_order == "bgr" else chosen)
                best = predictor.top(predictor.run(clip)[0], count)
                lag = time.monotonic() - frames[-1].arrived
                clips += 1
                if as_json:
                    times = {"seconds": round(second, 3), "lag": round(lag, 3)}
                    line = json.dumps({**times, "dropped": live.dropped, "top": as_dicts(best)})
                else:
                    names = "   ".join(f"{name} {probability:.1%}" for name, probability in best)
                    line = f"{second:8.2f} s   {names}   (lag {lag:.2f} s, {live.dropped} late frames dropped)"
                print(line, flush=True)
        except KeyboardInterrupt:
            pass  # the usual way to end
        else:
            if not clips:
                raise StvideoError(f"{source}: no frame of it could be read: {live.problem or 'it ended at once'}")
    if live.problem:
        logger.warning(f"{source}: broke off: {live.problem}")
    print(f"{source}: {clips} clips classified, {live.dropped} late frames dropped", file=sys.stderr)
    return clips


def _open(source: str) -> Any:
    place, kind, options = source.removeprefix(STREAM), None, {}
    if source.startswith(CAMERA):
        kind, prefix = CAMERA_FORMATS.get(sys.platform, CAMERA_FORMATS["linux"])
        device = source.removeprefix(CAMERA)
        place = prefix + device if device.isdigit() else device
        options = {"framerate": "30"} if kind == "avfoundation" else {}
    if not place:
        raise StvideoError(f"{source}: name a camera (camera:0) or a stream (stream:rtsp://...)")
    try:
        container = av.open(place, format=kind, options=options, timeout=TIMEOUTS)
    except (OSError, ValueError) as error:
        what, reason = source.split(":")[0], getattr(error, "strerror", None) or error
        raise StvideoError(f"{source}: no such {what}, or it cannot be opened: {reason}") from None
    if not container.streams.video:
        container.close()
        raise StvideoError(f"{source}: it has no video")
    return container
