"""List the videos that a data tool was asked for: a list, a folder, single files, or what a configuration names.

And the way back: lists of the same videos under other names.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stvideo.core.errors import StvideoError
from stvideo.core.files import exists, write_atomically
from stvideo.core.messages import logger
from stvideo.data.lists.annotations import (
    build_index,
    check_presence,
    find_annotations,
    find_file,
    path_below,
    read_annotations,
)
from stvideo.data.lists.disk import video_files
from stvideo.data.lists.index import VideoIndex
from stvideo.data.lists.kinetics import is_kinetics
from stvideo.data.lists.listfiles import list_line
from stvideo.data.lists.something import LABEL_FILES
from stvideo.data.lists.split_report import read_report, write_report
from stvideo.data.video.formats import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from stvideo.settings.config import load_config

_CONFIG_SUFFIXES = (".yaml", ".yml")


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
        """Add the videos of ``index``, which was read from ``source``, and what lies beside it."""
        for note in index.notes:
            logger.warning(f"{source}: {note}")
        self.paths += index.paths()
        if not source.is_file():
            return
        if source.suffix.lower() == ".json" or is_kinetics(source):
            self.others.append(source)
        else:
            self.lists.append((source, index))
        beside = (source.parent / name for name in ("classes.txt", *LABEL_FILES))
        self.others += [path for path in beside if path.is_file()]


def list_videos(sources: Sequence[str], root: str = "", overrides: Sequence[str] = ()) -> Listing:
    """List the videos that ``sources`` name.

    Args:
        sources: list files, official annotations (CSV, JSON), folders, video files or configurations (.yaml);
            nothing means all videos below ``root``.
        root: the data root; empty takes the folder that holds the list, the folder itself, or ``data.root``.
        overrides: ``data.key=value`` for configurations.

    Raises:
        StvideoError: a source is missing or malformed, or lies outside the root, or there are no videos.
    """
    if "" in sources or not (sources or root):
        raise StvideoError("name a list file, a folder, a configuration, or root=FOLDER; --help tells more")
    if overrides and not any(source.endswith(_CONFIG_SUFFIXES) for source in sources):
        raise StvideoError(f"the command line: {overrides[0]} is a setting of a configuration, and none is given")
    if root and not Path(root).expanduser().is_dir():
        raise StvideoError(f"root={root}: no such folder")
    found: Listing | None = None
    for source in sources or [root]:
        listing = _one_source(Path(source).expanduser(), Path(root).expanduser() if root else None, overrides)
        if found is None:
            found = listing
            continue
        if found.root.resolve() != listing.root.resolve():
            raise StvideoError(f"{source} starts from {listing.root}, what came before from {found.root}: give root=")
        found.paths += listing.paths
        found.lists += listing.lists
        found.others += listing.others
    assert found is not None
    found.paths = list(dict.fromkeys(found.paths))
    odd = next((path for path in found.paths if "\n" in path), None)
    if odd is not None:
        raise StvideoError(f"{str(found.root / odd)!r}: file names with line breaks are not supported; rename it")
    return found


def write_annotations(listing: Listing, output: Path, names: Mapping[str, str]) -> None:
    """Write the lists of ``listing`` to the folder ``output`` with the paths renamed by ``names``, copy what belongs.

    Official annotations name videos by their id, whatever the ending, and stay as they are.

    Raises:
        StvideoError: nothing can be written there, or a list would overwrite itself.
    """
    sources = dict.fromkeys([*(source for source, _ in listing.lists), *listing.others])
    targets = {source: output / _place(source, listing.root) for source in sources}
    for source, target in targets.items():
        if target.resolve() == source.resolve():
            raise StvideoError(f"{source} lies in output={output} and would be overwritten: name another output")
    indexes = dict(listing.lists)
    try:
        for source, target in targets.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            if source not in indexes:
                shutil.copyfile(source, target)
                continue
            index = indexes[source]
            spans = [None if index.start is None else index.span(video) for video in range(len(index))]
            lines = map(list_line, (names[path] for path in index.paths()), index.labels.tolist(), spans)
            write_atomically(target, "".join(lines))
            report = read_report(source)
            if report is not None:
                write_report(target, report)
    except OSError as error:
        raise StvideoError(f"{output}: cannot be written ({error.strerror})") from None


def _place(source: Path, root: Path) -> Path:
    """Locate an annotation file in another root: in the same place, or at the top if it is outside ``root``."""
    try:
        return source.resolve().relative_to(root.resolve())
    except ValueError:
        return Path(source.name)


def _one_source(source: Path, root: Path | None, overrides: Sequence[str]) -> Listing:
    if not exists(source):
        raise StvideoError(f"{source}: no such file or folder")
    if source.is_dir():
        root = root or source
        prefix = path_below(source, root)
        paths = [f"{prefix}{name}" for name in video_files(source)]
        if not paths:
            raise StvideoError(f"{source}: no videos below it (looked for {' '.join(VIDEO_SUFFIXES)})")
        return Listing(root, paths)
    suffix = source.suffix.lower()
    if suffix in _CONFIG_SUFFIXES:
        return _from_config(source, root, overrides)
    root = root or source.parent
    if suffix in (*VIDEO_SUFFIXES, *IMAGE_SUFFIXES):
        return Listing(root, [path_below(source, root).rstrip("/")])
    index = read_annotations(source, root)
    check_presence(index, root, source)
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
        listing.add_annotations(annotations, build_index(config, split))
    if config.classes:
        listing.others.append(find_file(config.classes, listing.root, "classes"))
    return listing
