"""Reading list files: one video a line, ``path label [start end]``, separated by tabs, commas or spaces.

    "my videos/arm wrestling 01.mp4" 6
    archery/x1.mp4,archery
    long/film.mkv   12   3.5   7.0        (only seconds 3.5 to 7 count)

Labels are class numbers or class names. Every error names the file and the line.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from stvideo.data.index import VideoIndex
from stvideo.errors import StvideoError, nearest

_PATH_HEADINGS = {"path", "video", "video_path", "filename", "file"}
_EXPECTED = "expected: path label [start end]; quote a path that contains spaces"


def read_list(path: Path, root: Path, classes: Sequence[str] | None = None) -> VideoIndex:
    """Read a list file whose paths are relative to ``root`` (or absolute, inside it).

    ``classes`` None: labels are numbers and the classes are named after them.

    Raises:
        StvideoError: the file is missing or empty, or a line is malformed, leaves the root or has an unknown label.
    """
    numbers = {name: number for number, name in enumerate(classes or [])}
    lines = read_text(path).splitlines()
    separator = _separator(lines)
    paths: list[str] = []
    labels: list[int] = []
    spans: list[tuple[float, float]] | None = None
    seen_heading = False
    prefix = f"{root.absolute()}/"
    for line_number, line in enumerate(lines, 1):
        if not line or line.isspace() or line.startswith("#"):
            continue
        where = f"{path}:{line_number}"
        fields = _split(line, separator, where)
        if not seen_heading:
            seen_heading = True
            if fields[0].lower() in _PATH_HEADINGS and (len(fields) < 2 or not fields[1].isdigit()):
                continue
        if len(fields) not in (2, 4):
            raise StvideoError(f"{where}: {line.strip()[:80]!r} has {len(fields)} columns; {_EXPECTED}")
        name = fields[0]
        if ".." in name or name.startswith(("/", "~")) or "\\" in name or not name or ":" in name:
            name = _inside(name, prefix, where)
        paths.append(name)
        labels.append(_label(fields[1], numbers, classes, where))
        if len(fields) == 4:
            spans = spans if spans is not None else [(math.nan, math.nan)] * (len(paths) - 1)
            spans.append(_span(fields[2], fields[3], where))
        elif spans is not None:
            spans.append((math.nan, math.nan))
    if not paths:
        raise StvideoError(f"{path}: the list is empty; {_EXPECTED}")
    names = list(classes) if classes is not None else [str(number) for number in range(max(labels) + 1)]
    return VideoIndex.build(paths, labels, names, spans)


def read_classes(path: Path) -> list[str]:
    """Class names: one a line, or a JSON object name -> number (Something-Something's labels.json)."""
    if path.suffix.lower() == ".json":
        from stvideo.data.annotations import read_ssv2_labels

        return read_ssv2_labels(path)
    names = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if not names:
        raise StvideoError(f"{path}: no class names in it; expected one a line")
    duplicates = {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else ()
    if duplicates:
        raise StvideoError(f"{path}: class {sorted(duplicates)[0]!r} is named twice")
    return names


def read_text(path: Path) -> str:
    """The file as text; raises `StvideoError` if it cannot be read or is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise StvideoError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise StvideoError(f"{path}: this is a folder, a file is expected") from None
    except UnicodeDecodeError as error:
        raise StvideoError(f"{path}: not a text file in UTF-8 (byte {error.start})") from None
    except OSError as error:
        raise StvideoError(f"{path}: cannot be read ({error.strerror})") from None


def _separator(lines: Sequence[str]) -> str:
    """Tab, comma or space, judged by the first line with content."""
    for line in lines:
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if "\t" in text:
            return "\t"
        outside_quotes = text.split('"')[::2]
        return "," if any("," in part for part in outside_quotes) else " "
    return " "


def _split(line: str, separator: str, where: str) -> list[str]:
    if '"' in line:
        try:
            row = next(csv.reader([line.strip()], delimiter=separator, skipinitialspace=True, strict=True))
        except (csv.Error, StopIteration) as error:
            raise StvideoError(f"{where}: quotes do not match ({error})") from None
        return [field.strip() for field in row if field.strip() or separator != " "]
    if separator != " ":
        return [field.strip() for field in line.split(separator)]
    fields = line.split()
    # "my video.mp4 12": an unquoted space is clear where only the last column can be the label.
    if len(fields) > 2 and _is_integer(fields[-1]) and not any(_is_number(field) for field in fields[1:-1]):
        return [line.strip()[: -len(fields[-1])].rstrip(), fields[-1]]
    return fields


def _label(text: str, numbers: dict[str, int], classes: Sequence[str] | None, where: str) -> int:
    if text.isdecimal():
        label = int(text)
        if classes is not None and label >= len(classes):
            raise StvideoError(f"{where}: class {label} is outside 0 .. {len(classes) - 1}, the classes that are named")
        if label >= 1_000_000:
            raise StvideoError(f"{where}: class number {label} is too large")
        return label
    if text in numbers:
        return numbers[text]
    if _is_integer(text):
        raise StvideoError(f"{where}: class {text} is negative")
    if classes is None:
        raise StvideoError(f"{where}: label {text!r} is not a number, and no class names are given (data.classes)")
    raise StvideoError(f"{where}: label {text!r} is not in the class list{nearest(text, numbers)}")


def _span(start: str, end: str, where: str) -> tuple[float, float]:
    try:
        first = float(start) if start else math.nan
        last = float(end) if end else math.nan
    except ValueError:
        raise StvideoError(f"{where}: start and end are seconds, not {start!r} and {end!r}") from None
    if first < 0 or last <= first or math.isinf(first) or math.isinf(last):
        raise StvideoError(f"{where}: a video cannot be cut from {start} s to {end} s")
    return first, last


def _inside(name: str, prefix: str, where: str) -> str:
    """``name`` relative to the root if it stays inside; else an error. Symbolic links inside the root are allowed."""
    if not name:
        raise StvideoError(f"{where}: the path is empty; {_EXPECTED}")
    relative = name[len(prefix) :] if name.startswith(prefix) else name
    if relative.startswith(("/", "~")) or ".." in PurePosixPath(relative.replace("\\", "/")).parts:
        raise StvideoError(f"{where}: {name!r} lies outside the data root {prefix}")
    return relative


def _is_integer(text: str) -> bool:
    return text.lstrip("-").isdecimal()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
