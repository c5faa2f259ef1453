"""Join official annotations with the files that are there: what was found, what is missing, what contradicts itself.

on_disk = OnDisk.scan(root)
split = Join(on_disk)
for entry in ...: split.add(entry)
split.clips(), split.missing, split.notes()
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from stvideo.core.errors import StvideoError, nearest
from stvideo.data.lists.disk import LeftOut, video_files
from stvideo.data.lists.index import IndexBuilder, Span, VideoIndex, without
from stvideo.data.lists.text_files import SHOWN, shown
from stvideo.data.video.formats import VIDEO_SUFFIXES


class Annotation(NamedTuple):
    """One video of an official split.

    Attributes:
        line: where the annotations name it.
        label: its class; None in a split without labels.
        key: what makes it this video and no other, such as its identifier and times.
        stems: names without ending under which its file may lie, best first.
        folders: names of folders that speak for a file, where several have the right name; best first.
        span: seconds of the source that the video is, for a file that may hold all of it: the last of ``stems``.
    """

    line: int
    label: str | None
    key: str
    stems: tuple[str, ...]
    folders: tuple[str, ...] = ()
    span: Span | None = None


class OnDisk:
    """The video files below a folder by their names without folder and ending.

    Attributes:
        files: name -> paths relative to ``root``, mostly one.
        named: names that some annotation has asked for; the others are files that no annotation knows.
        left_out: what looked like a video and was passed over.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: dict[str, tuple[str, ...]] = {}
        self.named: set[str] = set()
        self.left_out = LeftOut()

    @classmethod
    def scan(cls, root: Path, sizes: bool = False, progress: Any = iter) -> OnDisk:
        """Look through the folders once; see `video_files`. ``progress`` wraps the iterator of paths."""
        on_disk = cls(root)
        for path in progress(video_files(root, VIDEO_SUFFIXES, on_disk.left_out, sizes)):
            if "\n" in path or "\r" in path or (not path.isascii() and _undecodable(path)):
                on_disk.left_out.add("name that a list cannot hold", repr(path))
                continue
            stem = path.rsplit("/", 1)[-1].rsplit(".", 1)[0]
            on_disk.files[stem] = (*on_disk.files.get(stem, ()), path)
        return on_disk

    def paths(self) -> Iterator[str]:
        """List all files in the order in which they were found."""
        return chain.from_iterable(self.files.values())

    def keep_apart(self) -> None:
        """Tell files of one name in several folders apart, by their paths: they are videos of their own, no copies."""
        self.files = {path: (path,) for path in self.paths()}

    def find(self, entry: Annotation) -> tuple[str, bool] | None:
        """Find the best file for ``entry``, and whether it has the last of its names; None if there is none."""
        found: tuple[str, bool] | None = None
        for number, stem in enumerate(entry.stems):
            paths = self.files.get(stem)
            if paths is None:
                continue
            self.named.add(stem)
            if found is None:
                found = _best(paths, entry.folders), number == len(entry.stems) - 1
        return found

    def extra(self) -> list[str]:
        """Files that no annotation has asked for."""
        return [path for stem, paths in self.files.items() if stem not in self.named for path in paths]

    def copies(self) -> int:
        """Files beyond the first of their name, among those that were asked for."""
        return sum(len(paths) - 1 for stem, paths in self.files.items() if stem in self.named)


class Join:
    """Collect one split of a data set as far as it is on disk.

    Args:
        on_disk: the files.
        untrimmed: a file under the last of an entry's names holds more than the entry, whose span then counts.

    Attributes:
        official: different videos in the annotations.
        missing: labels of the videos without a file, counted.
        classes: labels of all videos, counted.
        repeated, contradictory, ambiguous: what was left out of the annotations, one line each.
    """

    def __init__(self, on_disk: OnDisk, untrimmed: bool = False) -> None:
        self.on_disk, self.untrimmed = on_disk, untrimmed
        self.official = 0
        self.missing: Counter[str | None] = Counter()
        self.classes: Counter[str | None] = Counter()
        self.repeated: list[str] = []
        self.contradictory: list[str] = []
        self.ambiguous: list[str] = []
        # One entry of each per entry seen; millions of tuples would weigh several times as much.
        self._places: dict[str, int] = {}
        self._lines = array("q")
        self._labels: list[str | None] = []
        self._paths: list[str | None] = []  # None: missing or left out
        self._spans: dict[int, Span] = {}
        self._whole: dict[str, int] = {}  # path that one clip takes as a whole

    def add(self, entry: Annotation) -> None:
        """Add an entry of the annotations."""
        place = self._places.setdefault(entry.key, len(self._labels))
        if place < len(self._labels):
            line, label = self._lines[place], self._labels[place]
            if label == entry.label:
                self.repeated.append(f"{entry.key} (lines {line} and {entry.line})")
            else:
                self.contradictory.append(f"{entry.key} ({label!r} in line {line}, {entry.label!r} in {entry.line})")
                self._paths[place] = None
            return
        self.official += 1
        self.classes[entry.label] += 1
        self._lines.append(entry.line)
        self._labels.append(entry.label)
        found = self.on_disk.find(entry)
        self._paths.append(found[0] if found else None)
        if found is None:
            self.missing[entry.label] += 1
            return
        path, bare = found
        if bare and entry.span is not None:
            self._spans[place] = entry.span
        if bare and not (self.untrimmed and entry.span):
            other = self._whole.setdefault(path, place)
            if other != place:
                self.ambiguous.append(path)
                self._paths[other] = self._paths[place] = None

    def keys(self) -> set[str]:
        """Keys of all entries."""
        return set(self._places)

    def clips(self) -> Iterator[tuple[str, str | None, Span | None]]:
        """List (path, label, part that counts) of every video found, in the order of the annotations."""
        for place, path in enumerate(self._paths):
            if path is not None:
                yield path, self._labels[place], self._spans.get(place) if self.untrimmed else None

    def sources(self) -> list[tuple[str, Span]]:
        """Files that may hold more than their entry, and what the entry takes of them."""
        found = ((self._paths[place], span) for place, span in self._spans.items())
        return [(path, span) for path, span in found if path is not None]

    @property
    def found(self) -> int:
        return len(self._paths) - self._paths.count(None)

    def index(self, classes: Sequence[str], source: Path) -> VideoIndex:
        """Make a `VideoIndex` of what was found; every label has to be in ``classes``.

        Raises:
            StvideoError: nothing was found; names ``source``, the annotations.
        """
        if not self.found:
            root = self.on_disk.root
            raise StvideoError(f"{source}: none of its {self.official} videos is below the data root {root}")
        numbers = {name: number for number, name in enumerate(classes)}
        builder = IndexBuilder()
        for path, label, span in self.clips():
            builder.add(path, numbers[str(label)], span)
        return builder.finish(list(classes), self.notes(), self.official)

    def notes(self) -> list[str]:
        """List what is missing or contradictory, a line each."""
        notes = []
        if missing := sum(self.missing.values()):
            worst = ", ".join(f"{name} {count}" for name, count in self.missing.most_common(3) if name)
            most = f" (most: {worst})" if worst else ""
            notes.append(f"{missing} of {self.official} videos ({missing / self.official:.1%}) are not on disk{most}")
        notes += without(
            [name for name, count in self.classes.items() if name and self.missing[name] == count], "video left"
        )
        for what, examples in (
            ("entries that repeat others, counted once", self.repeated),
            ("videos annotated with two classes, left out", self.contradictory),
            ("files that would have to serve several clips, left out", self.ambiguous),
        ):
            if examples:
                notes.append(f"{what}: {len(examples)}, e.g. {examples[0]}")
        return notes


def known_label(label: str, numbers: dict[str, int], where: str) -> str:
    """Spell ``label`` as the class list does (spaces or underscores); raises `StvideoError` if it is not in it."""
    for spelling in (label, label.replace("_", " "), label.replace(" ", "_")):
        if spelling in numbers:
            return spelling
    raise StvideoError(f"{where}: label {shown(label)} is not in the class list{nearest(label[:SHOWN], numbers)}")


def _best(paths: tuple[str, ...], folders: tuple[str, ...]) -> str:
    """Choose among files with the right name: one in a folder that fits, the earlier named the better."""

    def rank(path: str) -> int:
        above = path.split("/")[:-1]
        return sum(1 << (len(folders) - number) for number, name in enumerate(folders) if name in above)

    return max(paths, key=rank)


def _undecodable(path: str) -> bool:
    """Tell whether a name is no UTF-8 on disk."""
    return any("\udc80" <= letter <= "\udcff" for letter in path)
