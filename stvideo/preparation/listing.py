"""Which videos a data tool was asked for: a list, a folder, single files, or what a configuration names.

And the way back: lists of the same videos under other names.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stvideo.core.errors import StvideoError
from stvideo.core.files import write_atomically
from stvideo.core.messages import logger
from stvideo.data.lists.annotations import read_annotations
from stvideo.data.lists.disk import VIDEO_SUFFIXES, video_files
from stvideo.data.lists.index import VideoIndex
from stvideo.data.lists.kinetics import is_kinetics
from stvideo.data.lists.annotations import build_index, check_presence, find_annotations
from stvideo.data.lists.split_report import read_report, write_report
from stvideo.data.video.images import IMAGE_SUFFIXES
from stvideo.preparation.split_lists import quoted
from stvideo.settings.config import load_config

_CONFIG_SUFFIXES = (".yaml", ".yml")
_CLASS_FILES = ("classes.txt", "labels.json", "something-something-v2-labels.json")


@dataclass
class Listing:
    """Videos below ``root``.

    Attributes:
        paths: relative to the root, each once.
        lists: the list files that name them, with what is in them.
        others: further files that belong to the annotations: official CSVs and JSONs, class names.
    """

    root: Path
    paths: list[str] = field(default_factory=list)
    lists: list[tuple[Path, VideoIndex]] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)

    def add_annotations(self, source: Path, index: VideoIndex) -> None:
        """Note the videos of ``index``, which was read from ``source``, and what lies beside it."""
        self.paths += index.paths()
        if not source.is_file():
            return
        if source.suffix.lower() == ".json" or is_kinetics(source):
            self.others.append(source)
        else:
            self.lists.append((source, index))
        self.others += [path for name in _CLASS_FILES if (path := source.parent / name).is_file()]


def list_videos(sources: Sequence[str], root: str = "", overrides: Sequence[str] = ()) -> Listing:
    """The videos that ``sources`` name.

    Args:
        sources: list files, official annotations (CSV, JSON), folders, video files or configurations (.yaml);
            nothing means all videos below ``root``.
        root: the data root; empty takes the folder that holds the list, the folder itself, or ``data.root``.
        overrides: ``data.key=value`` for configurations.

    Raises:
        StvideoError: a source is missing or malformed, or lies outside the root, or there are no videos.
    """
    if not sources and not root:
        raise StvideoError("name a list file, a folder, a configuration, or root=FOLDER; --help tells more")
    if overrides and not any(source.endswith(_CONFIG_SUFFIXES) for source in sources):
        raise StvideoError(f"the command line: {overrides[0]} is a setting of a configuration, and none is given")
    found: Listing | None = None
    for source in sources or [root]:
        listing = _one_source(Path(source).expanduser(), Path(root).expanduser() if root else None, overrides)
        if found is not None and found.root.resolve() != listing.root.resolve():
            raise StvideoError(f"{source} starts from {listing.root}, what came before from {found.root}: give root=")
        found = found or Listing(listing.root)
        found.paths += listing.paths
        found.lists += listing.lists
        found.others += listing.others
    assert found is not None
    found.paths = list(dict.fromkeys(found.paths))
    odd = next((path for path in found.paths if "\n" in path), None)
    if odd is not None:
        raise StvideoError(f"{found.root / odd!r}: file names with line breaks are not supported; rename it")
    return found


def write_annotations(listing: Listing, output: Path, names: Mapping[str, str]) -> list[Path]:
    """Write the lists of ``listing`` to the folder ``output`` with the paths renamed by ``names``, copy what belongs.

    Official annotations name videos by their id, whatever the ending, and stay as they are. Returns what was written.

    Raises:
        StvideoError: nothing can be written there, or a list would overwrite itself.
    """
    sources = [source for source, _ in listing.lists] + list(dict.fromkeys(listing.others))
    targets = {source: output / _place(source, listing.root) for source in sources}
    for source, target in targets.items():
        if target.resolve() == source.resolve():
            raise StvideoError(f"{source} lies in output={output} and would be overwritten: name another output")
    try:
        for source, index in listing.lists:
            targets[source].parent.mkdir(parents=True, exist_ok=True)
            write_atomically(targets[source], _list_text(index, names))
            found = read_report(source)
            if found is not None:
                write_report(targets[source], found)
        for source in dict.fromkeys(listing.others):
            targets[source].parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, targets[source])
    except OSError as error:
        raise StvideoError(f"{output}: cannot be written ({error.strerror})") from None
    return list(targets.values())


def _place(source: Path, root: Path) -> Path:
    """Where an annotation file goes in another root: to the same place, or to the top if it lies outside ``root``."""
    try:
        return source.resolve().relative_to(root.resolve())
    except ValueError:
        return Path(source.name)


def _list_text(index: VideoIndex, names: Mapping[str, str]) -> str:
    lines = []
    for video in range(len(index)):
        columns = [quoted(names[index.path(video)]), str(int(index.labels[video]))]
        if index.start is not None:  # a bare tab at the end of a line would be lost
            columns += ['""' if second is None else f"{second:.10g}" for second in index.span(video)]
        lines.append("\t".join(columns) + "\n")
    return "".join(lines)


def _one_source(source: Path, root: Path | None, overrides: Sequence[str]) -> Listing:
    if not source.exists():
        raise StvideoError(f"{source}: no such file or folder")
    if root is not None and not root.is_dir():
        raise StvideoError(f"root={root}: no such folder")
    if source.is_dir():
        root = root or source
        prefix = _below(source, root)
        paths = [f"{prefix}{name}" for name in video_files(source)]
        if not paths:
            raise StvideoError(f"{source}: no videos below it (looked for {' '.join(VIDEO_SUFFIXES)})")
        return Listing(root, paths)
    suffix = source.suffix.lower()
    if suffix in _CONFIG_SUFFIXES:
        return _from_config(source, root, overrides)
    if suffix in (*VIDEO_SUFFIXES, *IMAGE_SUFFIXES):
        root = root or source.parent
        return Listing(root, [_below(source, root).rstrip("/")])
    root = root or source.parent
    index = read_annotations(source, root)
    check_presence(index, root, source)
    for note in index.notes:
        logger.warning(f"{source}: {note}")
    listing = Listing(root)
    listing.add_annotations(source, index)
    return listing


def _from_config(source: Path, root: Path | None, overrides: Sequence[str]) -> Listing:
    config = load_config(source, overrides).data
    if root is not None:
        config.root = str(root)
    if not config.root:
        raise StvideoError(f"{source}: data.root is not set: give root=FOLDER")
    listing = Listing(Path(config.root).expanduser())
    for split in ("train", "val"):
        try:
            annotations = find_annotations(config, split, listing.root)
        except StvideoError:
            if getattr(config, split) or (split == "val" and not listing.paths):
                raise
            continue
        index = build_index(config, split)
        for note in index.notes:
            logger.warning(f"{split}: {note}")
        listing.add_annotations(annotations, index)
    if config.classes:
        listing.others += [
            p for p in (Path(config.classes).expanduser(), listing.root / config.classes) if p.is_file()
        ][:1]
    return listing


def _below(path: Path, root: Path) -> str:
    """``path`` relative to ``root``, with a slash at its end unless it is the root itself."""
    try:
        relative = path.absolute().relative_to(root.absolute()).as_posix()
    except ValueError:
        raise StvideoError(f"{path} does not lie below root={root}") from None
    return "" if relative == "." else f"{relative}/"
