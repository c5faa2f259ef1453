"""Encoded videos in which one patch of one frame is white."""

from pathlib import Path

import av
import numpy as np

from stvideo.data.clips.transforms import view_crop
from stvideo.drawing.encode import video_writer
from stvideo.drawing.geometry import PatchArea

GRAY = 110


def patch_box(area: PatchArea, row: int, column: int, rows: int, columns: int) -> tuple[float, float, float, float]:
    """Left, top, right and bottom edge of one patch of a grid, in pixels of the frame."""
    width, height = area.width / columns, area.height / rows
    left, top = area.left + column * width, area.top + row * height
    return left, top, left + width, top + height


def center_crop(width: int, height: int) -> PatchArea:
    """The square test crop as displayed."""
    box = view_crop(height, width, 0, 1)
    return PatchArea(box.left, box.top, box.width, box.height, width, height)


def painted_frames(count: int, width: int, height: int, white: tuple[int, int, int], grid: int = 4) -> list[np.ndarray]:
    """Gray frames; in frame ``white[0]`` the patch at row, column ``white[1:]`` of the centre crop is white."""
    frames = [np.full((height, width, 3), GRAY, np.uint8) for _ in range(count)]
    left, top, right, bottom = map(round, patch_box(center_crop(width, height), *white[1:], grid, grid))
    frames[white[0]][top:bottom, left:right] = 255
    return frames


def write_video(path: Path, frames: list[np.ndarray], fps: float = 30) -> Path:
    """An H.264 file of even size."""
    height, width = frames[0].shape[:2]
    with video_writer(path, fps, width, height) as write:
        for frame in frames:
            write(frame)
    return path


def write_rotated_video(path: Path, shown: list[np.ndarray]) -> Path:
    """A file whose stored frames lie on their side; the display matrix turns them by 90 degrees clockwise."""
    write_video(path, [np.rot90(frame) for frame in shown])
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 44  # version 0 track header: nine 32-bit numbers
    stored_height = shown[0].shape[1]
    numbers = [0, 1 << 16, 0, -(1 << 16), 0, 0, stored_height << 16, 0, 1 << 30]
    content[matrix : matrix + 36] = b"".join(n.to_bytes(4, "big", signed=True) for n in numbers)
    path.write_bytes(bytes(content))
    return path


def decode(path: Path) -> list[np.ndarray]:
    """Every frame of a file, as PyAV gives it."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
