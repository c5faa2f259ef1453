"""Read list files: one video a line, ``path label [start end]``, separated by tabs, commas or spaces.

    "my videos/arm wrestling 01.mp4" 6
    archery/x1.mp4,archery
    long/film.mkv   12   3.5   7.0        (only seconds 3.5 to 7 count)

Labels are class numbers or class names. Lists are read line by line, so that a million of them need little memory.
Every error names the file and the line.
"""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from stvideo.core.errors import StvideoError, nearest
from stvideo.data.lists.index import IndexBuilder, Span, VideoIndex, without
from stvideo.data.lists.text_files import SHOWN, read_json, read_lines, read_text, shown

_PATH_HEADINGS = {"path", "video", "video_path", "filename", "file"}
_EXPECTED = "expected: path label [start end]; quote a path that contains spaces"
# Paths that need a closer look: they may leave the root, or spell in another way what others name too.
_SUSPICIOUS = re.compile(r"^[/~]|//|(^|/)\.{1,2}(/|$)|/$|^$|[\\\0]")
_QUOTED = re.compile(r"""("[^"]*"|'[^']*')(?:\s*[\s,]\s*|$)""")  # a quoted path and what separates it from the label
# "a, b.mp4 3": in a list separated by spaces, a comma inside a path.
_COMMA_IN_PATH = re.compile(r"[^\s,]*,[^,]*\.\w{2,4}\s+\d+(\s+[\d.]+\s+[\d.]+)?$")
_MAX_CLASSES = 1_000_000


def read_list(path: Path, root: Path, classes: Sequence[str] | None = None) -> VideoIndex:
    """Read a list file whose paths are relative to ``root`` (or absolute, inside it).

    ``classes`` None: labels are numbers and the classes are named after them.

    Raises:
        StvideoError: the list is missing or empty, a line is malformed, leaves the root or has an unknown label, or
            two lines give the same video different labels.
    """
    numbers = {name: number for number, name in enumerate(classes or [])}
    known: dict[str, int] = {}
    prefixes = tuple({f"{root.absolute()}/", f"{root.resolve()}/"})
    builder = IndexBuilder()
    add, suspicious = builder.add, _SUSPICIOUS.search
    for line_number, fields in _rows(path):
        try:
            if len(fields) not in (2, 4):
                raise StvideoError(f"{shown(' '.join(fields))} has {len(fields)} columns; {_EXPECTED}")
            name, text = fields[0], fields[1]
            if suspicious(name):
                name = _inside(name, prefixes)
            label = known.get(text)
            if label is None:
                label = known[text] = _label(text, numbers, classes)
            add(name, label, None if len(fields) == 2 else _span(fields[2], fields[3]))
        except StvideoError as error:
            raise StvideoError(f"{path}:{line_number}: {error}") from None
    if not len(builder):
        raise StvideoError(f"{path}: the list is empty; {_EXPECTED}")
    index = builder.finish(
        list(classes) if classes is not None else [str(number) for number in range(1 + max(known.values()))]
    )
    index.notes += _repeats(index, path) + without(index.empty_classes())
    return index


def read_classes(path: Path) -> list[str]:
    """Read class names: one a line, or a JSON object name -> number (Something-Something's labels.json)."""
    if path.suffix.lower() == ".json":
        return _read_numbered_classes(path)
    names = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if not names:
        raise StvideoError(f"{path}: no class names in it; expected one a line")
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise StvideoError(f"{path}: class {shown(name)} is named twice")
    return names


def list_line(path: str, label: int | None, span: tuple[float | None, float | None] | None = None) -> str:
    """Write a line of a list: ``path<tab>label[<tab>start<tab>end]``; without label the path alone."""
    quotes = path[0] in "#\"'" or "\t" in path or path != path.strip()
    columns = ['"' + path.replace('"', '""') + '"' if quotes else path]
    columns += [] if label is None else [str(label)]
    # A bare tab at the end of a line would be lost.
    columns += ['""' if second is None else f"{second:.6f}".rstrip("0").rstrip(".") for second in span or ()]
    return "\t".join(columns) + "\n"


def _read_numbered_classes(path: Path) -> list[str]:
    content = read_json(path)
    if not isinstance(content, dict) or not content:
        raise StvideoError(f"{path}: expected a JSON object of class name -> number")
    try:
        numbered = {int(number): name for name, number in content.items()}
    except (TypeError, ValueError, OverflowError):
        raise StvideoError(f"{path}: class numbers are expected as values") from None
    if sorted(numbered) != list(range(len(content))):
        raise StvideoError(f"{path}: class numbers are not 0 .. {len(content) - 1}, each once")
    return [numbered[number] for number in range(len(content))]


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and columns of every entry; comments, blank lines and a heading are passed over."""
    separator = ""
    for number, line in enumerate(read_lines(path), 1):
        line = line.strip()
        if not line or line[0] == "#":
            continue
        if separator == " " and '"' not in line and len(fields := line.split()) == 2 and line[0] != "'":
            yield number, fields  # what most lines look like, by the shortest way
            continue
        is_first, separator = not separator, separator or _separator(line)
        try:
            fields = _split(line, separator)
        except csv.Error as error:
            raise StvideoError(f"{path}:{number}: quotes do not match ({error})") from None
        if is_first and fields[0].lower() in _PATH_HEADINGS and (len(fields) < 2 or not fields[1].isdigit()):
            continue
        yield number, fields


def _separator(line: str) -> str:
    """Tab, comma or space, judged by the first line with content."""
    if "\t" in line:
        return "\t"
    quoted_path = _QUOTED.match(line)
    if quoted_path:
        return "," if "," in line[len(quoted_path[1]) :] else " "
    return "," if "," in line and not _COMMA_IN_PATH.match(line) else " "


def _split(line: str, separator: str) -> list[str]:
    """Split one line into its columns; raises csv.Error."""
    quoted_path = _QUOTED.match(line)
    if quoted_path and '"' not in line[quoted_path.end() :]:
        rest = line[quoted_path.end() :]
        return [quoted_path[1][1:-1], *(rest.split() if separator == " " else _split(rest, separator) if rest else [])]
    if '"' in line:
        row = next(csv.reader([line], delimiter=separator, skipinitialspace=True, strict=True))
        return [field.strip() for field in row if field.strip() or separator != " "]
    if separator != " ":
        return [field.strip() for field in line.split(separator)]
    fields = line.split()
    # "my video.mp4 12": an unquoted space is clear where only the last column can be the label.
    if len(fields) > 2 and _is_integer(fields[-1]) and not any(_is_number(field) for field in fields[1:-1]):
        return [line[: -len(fields[-1])].rstrip(), fields[-1]]
    return fields


def _label(text: str, numbers: dict[str, int], classes: Sequence[str] | None) -> int:
    if text.isdecimal():
        label = int(text) if len(text) < 10 else _MAX_CLASSES
        if classes is not None and label >= len(classes):
            raise StvideoError(f"class {text[:SHOWN]} is outside 0 .. {len(classes) - 1}, the classes that are named")
        if label >= _MAX_CLASSES:
            raise StvideoError(f"class number {text[:SHOWN]} is too large")
        return label
    if text in numbers:
        return numbers[text]
    if _is_integer(text):
        raise StvideoError(f"class {text[:SHOWN]} is negative")
    if classes is None:
        raise StvideoError(f"label {shown(text)} is not a number, and no class names are given (data.classes)")
    raise StvideoError(f"label {shown(text)} is not in the class list{nearest(text[:SHOWN], numbers)}")


def _span(start: str, end: str) -> Span:
    try:
        first = float(start) if start else math.nan
        last = float(end) if end else math.nan
    except ValueError:
        raise StvideoError(f"start and end are seconds, not {shown(start)} and {shown(end)}") from None
    possible = (not start or 0 <= first < math.inf) and (not end or 0 < last < math.inf)
    if not possible or last <= first:
        raise StvideoError(f"a video cannot be cut from {start[:SHOWN]} s to {end[:SHOWN]} s")
    return first, last


def _inside(name: str, prefixes: tuple[str, ...]) -> str:
    """Spell ``name`` in its one way, relative to the root; raises `StvideoError` unless it stays inside.

    Symbolic links inside the root are allowed.
    """
    if not name:
        raise StvideoError(f"the path is empty; {_EXPECTED}")
    if "\0" in name:
        raise StvideoError(f"{shown(name)} is no path")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    plain = "/" * name.startswith("/") + "/".join(parts)
    plain = next((plain.removeprefix(prefix) for prefix in prefixes if plain.startswith(prefix)), plain)
    if not plain or plain.startswith(("/", "~")) or ".." in plain.replace("\\", "/").split("/"):
        raise StvideoError(f"{shown(name)} lies outside the data root {prefixes[0]}")
    return plain


def _repeats(index: VideoIndex, path: Path) -> list[str]:
    """Note repeated entries; raises `StvideoError` where they contradict one another."""
    pairs = index.repeats()
    if not pairs:
        return []
    conflicts = [pair for pair in pairs if index.labels[pair[0]] != index.labels[pair[1]]]
    first, again = (conflicts or pairs)[0]
    # Where the entries stand was not kept; both lists are the same length as long as nobody writes to the file.
    lines = {entry: number for entry, (number, _) in enumerate(_rows(path)) if entry in (first, again)}
    name = index.path(first)
    if conflicts:
        labels = " and ".join(repr(index.classes[int(index.labels[entry])]) for entry in (first, again))
        raise StvideoError(f"{path}:{lines[again]}: {name} is in classes {labels} (see line {lines[first]}): keep one")
    return [f"entries that repeat others: {len(pairs)}, e.g. line {lines[again]} ({name}, as line {lines[first]})"]


def _is_integer(text: str) -> bool:
    return text.lstrip("-").isdecimal()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
