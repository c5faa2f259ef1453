"""Classify a camera or a stream while it runs: the newest frames only, late ones dropped, the lag measured."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import deque
from typing import Any, NamedTuple

import av
import numpy as np
import torch
from numpy.typing import NDArray

from stvideo.core.errors import StvideoError
from stvideo.core.messages import logger
from stvideo.data.video.display import Display, quarter_turns
from stvideo.inference.predictor import Predictor

CAMERA, STREAM = "camera:", "stream:"
CAMERA_FORMATS = {"linux": ("v4l2", "/dev/video"), "darwin": ("avfoundation", ""), "win32": ("dshow", "video=")}
SEGMENT_SECONDS = 4.0  # what a model that samples whole videos is shown of a stream, unless predict.window_seconds says
LATE = 0.25  # seconds behind the stream's own clock after which a frame is dropped undecoded into pixels
OPEN_TIMEOUT, READ_TIMEOUT = 10.0, 10.0  # seconds


class LiveFrame(NamedTuple):
    """A frame of a stream: its time on the stream's clock, when it arrived here, and its (H, W, 3) uint8 pixels."""

    seconds: float
    arrived: float
    pixels: NDArray[np.uint8]


def is_stream(argument: str) -> bool:
    """Whether a command-line argument means a camera or a stream and not a file."""
    return argument.startswith((CAMERA, STREAM))


class LiveSource:
    """Reads a stream in a thread of its own and keeps the frames of its last ``span`` seconds.

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
        self.source, self.span, self.short_side = source, span, short_side
        self.dropped = 0
        self.problem: str | None = None
        self._frames: deque[LiveFrame] = deque()
        self._changed = threading.Condition()
        self._ended = self._stopping = False
        self._display = Display()
        self._container = _open(source)
        self._stream = self._container.streams.video[0]
        self._thread = threading.Thread(target=self._read, name="live source", daemon=True)
        self._thread.start()

    def __enter__(self) -> LiveSource:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._thread.join(timeout=READ_TIMEOUT)
        if not self._thread.is_alive():
            self._container.close()

    def newest(self, after: float | None) -> list[LiveFrame]:
        """The frames of the last ``span`` seconds, once there is one later than ``after`` (stream seconds).

        Returns:
            An empty list when the stream has ended and holds nothing new.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._is_new(after))
            return list(self._frames) if self._is_new(after) else []

    def _is_new(self, after: float | None) -> bool:
        return bool(self._frames) and (after is None or self._frames[-1].seconds > after)

    def _read(self) -> None:
        started: float | None = None
        first = 0.0
        number = 0
        try:
            for frame in self._container.decode(self._stream):
                if self._stopping:
                    break
                now = time.monotonic()
                rate = float(self._stream.average_rate or 25)
                seconds = number / rate if frame.time is None else float(frame.time)
                number += 1
                if started is None or now - started + first < seconds - self.span:
                    started, first = now, seconds  # the clock of the stream starts (again, after a jump)
                ahead = (seconds - first) - (now - started)
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
        with self._changed:
            if self._frames and frame.pixels.shape != self._frames[-1].pixels.shape:
                self._frames.clear()  # the stream changed its size
            self._frames.append(frame)
            while self._frames[0].seconds < frame.seconds - self.span:
                self._frames.popleft()
            self._changed.notify_all()


def pick(frames: list[LiveFrame], span: float, count: int) -> list[LiveFrame]:
    """``count`` frames spread evenly over the last ``span`` seconds; the first one is repeated while there are less."""
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
    data, settings = predictor.data, predictor.config.predict
    by_stride = data.stride * data.num_frames / data.target_fps
    span = settings.window_seconds or (by_stride if data.sampling == "stride" else SEGMENT_SECONDS)
    clips, after = 0, None
    with LiveSource(source, span, data.img_size) as live:
        try:
            while frames := live.newest(after):
                after = frames[-1].seconds
                chosen = torch.from_numpy(np.stack([f.pixels for f in pick(frames, span, data.num_frames)]))
                clip = predictor.prepare(chosen.flip(-1) if data.color_order == "bgr" else chosen)
                best = predictor.top(predictor.run(clip)[0], predictor.config.top_k)
                lag = time.monotonic() - frames[-1].arrived
                clips += 1
                _show(after, best, lag, live.dropped, as_json)
        except KeyboardInterrupt:
            pass  # the usual way to end
        if live.problem and not clips:
            raise StvideoError(f"{source}: cannot be read: {live.problem}")
        if not clips and not live.problem and after is None:
            raise StvideoError(f"{source}: it ended before its first frame")
    if live.problem:
        logger.warning(f"{source}: broke off: {live.problem}")
    print(f"{source}: {clips} clips classified, {live.dropped} late frames dropped", file=sys.stderr)
    return clips


def _show(second: float, best: list[tuple[str, float]], lag: float, dropped: int, as_json: bool) -> None:
    if as_json:
        top = [{"class": name, "probability": round(probability, 6)} for name, probability in best]
        line = json.dumps({"seconds": round(second, 3), "lag": round(lag, 3), "dropped": dropped, "top": top})
    else:
        names = "   ".join(f"{name} {probability:.1%}" for name, probability in best)
        line = f"{second:8.2f} s   {names}   (lag {lag:.2f} s, {dropped} late frames dropped)"
    print(line, flush=True)


def _open(source: str) -> Any:
    if source.startswith(STREAM):
        place, container_format, options = source.removeprefix(STREAM), None, {}
    else:
        container_format, prefix = CAMERA_FORMATS.get(sys.platform, CAMERA_FORMATS["linux"])
        device = source.removeprefix(CAMERA)
        place = prefix + device if device.isdigit() else device
        options = {"framerate": "30"} if container_format == "avfoundation" else {}
    if not place:
        raise StvideoError(f"{source}: name a camera (camera:0) or a stream (stream:rtsp://...)")
    try:
        container = av.open(place, format=container_format, options=options, timeout=(OPEN_TIMEOUT, READ_TIMEOUT))
    except (OSError, ValueError) as error:
        kind = "camera" if source.startswith(CAMERA) else "stream"
        reason = getattr(error, "strerror", None) or error
        raise StvideoError(f"{source}: no such {kind}, or it cannot be opened: {reason}") from None
    if not container.streams.video:
        container.close()
        raise StvideoError(f"{source}: it has no video")
    return container
