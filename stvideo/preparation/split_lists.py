"""Write what training reads from joined splits: list files, class names, and a report beside every list.

What the data tools for Kinetics, Something-Something, UCF101, HMDB51 and class folders have in common.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stvideo.core.errors import StvideoError
from stvideo.core.files import exists, write_atomically
from stvideo.core.messages import logger
from stvideo.data.lists.joining import Join, OnDisk
from stvideo.data.lists.listfiles import list_line
from stvideo.data.lists.split_report import read_report, report_path, write_report

_EXAMPLES = 20  # of files that no annotation names, in a report


@dataclass
class ListSettings:
    """What every tool that writes lists can be given as ``key=value``."""

    root: str = ""
    output: str = ""
    overwrite: bool = False


def scan_root(folder: str) -> OnDisk:
    """Find all video files below the setting ``root``; raises `StvideoError` if there is none."""
    if not folder:
        raise StvideoError("root=FOLDER is missing: the folder that holds the videos, at any depth; --help tells more")
    root = Path(folder).expanduser()
    if not root.is_dir():
        what = "this is a file, the folder that holds the videos is expected" if exists(root) else "no such folder"
        raise StvideoError(f"root={root}: {what}")
    on_disk = OnDisk.scan(
        root, sizes=True, progress=lambda paths: tqdm(paths, desc=f"{root}", unit=" videos", disable=None)
    )
    if not on_disk.files:
        archives = on_disk.left_out.counts.get("archive", 0)
        hint = f"; it holds {archives} archives, e.g. {on_disk.left_out.examples['archive']}: unpack them first"
        raise StvideoError(f"root={root}: no videos in it" + (hint if archives else ""))
    return on_disk


def write_splits(splits: Mapping[str, Join], classes: Sequence[str], on_disk: OnDisk, settings: ListSettings) -> None:
    """Write OUTPUT/NAME.txt with its report for every split, and OUTPUT/classes.txt; print what is in them.

    Videos of a split without labels are listed by path alone, in OUTPUT/NAME.unlabeled.txt.

    Raises:
        StvideoError: nothing was found, or a file with other content is in the way; nothing is written then.
    """
    root = on_disk.root
    output = Path(settings.output).expanduser() if settings.output else root
    extra = on_disk.extra()
    if not any(join.found for join in splits.values()):
        wanted = sum(join.official for join in splits.values())
        raise StvideoError(
            f"root={root}: none of the {wanted} annotated videos is among its {len(on_disk.files)} video files"
            f" (e.g. {extra[0] if extra else 'none'})"
        )
    odd = next((name for name in classes if name.strip().splitlines() != [name]), None)
    if odd is not None:
        raise StvideoError(f"class name {odd!r}: a line of classes.txt cannot hold it; rename the class")
    numbers = {name: number for number, name in enumerate(classes)}
    lists: dict[str, Path] = {}
    texts: dict[Path, str] = {}
    for name, join in splits.items():
        if join.found:
            lists[name] = output / (f"{name}.txt" if None not in join.classes else f"{name}.unlabeled.txt")
            clips = ((path, None if label is None else numbers[label], span) for path, label, span in join.clips())
            texts[lists[name]] = "".join(list_line(*clip) for clip in clips)
    if classes:
        texts[output / "classes.txt"] = "".join(f"{name}\n" for name in classes)
    _check_free(texts, lists.values(), settings.overwrite)
    common = {
        "root": str(root),
        "second_copies": on_disk.copies(),
        "extra_files": {"count": len(extra), "examples": extra[:_EXAMPLES]},
        "passed_over": on_disk.left_out.counts,
    }
    try:
        output.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            write_atomically(path, text)
        for name, path in lists.items():
            write_report(path, {"split": name, **split_report(splits[name]), **common})
    except OSError as error:
        raise StvideoError(
            f"{error.filename or output}: cannot be written ({error.strerror}); name another output=FOLDER"
        ) from None
    for name, join in splits.items():
        _print_split(name, join, lists.get(name))
    _warn_of_leaks(splits)
    if extra:
        print(f"files that these annotations do not name: {len(extra):,} (e.g. {extra[0]})")
    if on_disk.copies():
        print(f"second copies of videos, not used: {on_disk.copies():,}")
    for reason, count in sorted(on_disk.left_out.counts.items()):
        print(f"passed over: {count:,} x {reason} (e.g. {on_disk.left_out.examples[reason]})")
    use = [f"data.root={root}"]
    for side in ("train", "val"):
        use += [f"data.{side}={path}" for name, path in lists.items() if name.startswith(side)][:1]
    use += [f"data.classes={output / 'classes.txt'}"] if classes else []
    print(f"use: {' '.join(use)}")


def split_report(join: Join) -> dict[str, Any]:
    """Count what was found, in all and per class; see `stvideo.data.lists.split_report`."""
    return {
        "official": join.official,
        "found": join.found,
        "missing": sum(join.missing.values()),
        "share": round(join.found / join.official, 6) if join.official else 0.0,
        "repeated": len(join.repeated),
        "contradictory": len(join.contradictory),
        "ambiguous": len(join.ambiguous),
        "missing_per_class": {str(name): join.missing[name] for name in sorted(map(str, join.missing))},
        "official_per_class": {name: join.classes[name] for name in sorted(map(str, join.classes))},
    }


def _check_free(texts: Mapping[Path, str], lists: Iterable[Path], overwrite: bool) -> None:
    """Refuse to replace what somebody else may need."""
    for path in [*texts, *map(report_path, lists)]:
        if exists(path) and not path.is_file():
            raise StvideoError(f"{path}: this is no file, a file is to be written there; name another output=FOLDER")
    if overwrite:
        return
    for path, text in texts.items():
        if exists(path) and path.read_bytes() != text.encode():
            raise StvideoError(
                f"{path}: already there with other content; overwrite=true replaces it, or name another output=FOLDER"
            )
    for path in lists:
        read_report(path)  # complains of one that is none


def _print_split(name: str, join: Join, path: Path | None) -> None:
    share = join.found / join.official if join.official else 0
    print(f"{name}: {join.found:,} of {join.official:,} videos ({share:.1%}) -> {path or 'no list'}")
    if path is not None:
        print(f"  sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}")
    if missing := sum(join.missing.values()):
        worst = [f"{label} {count} of {join.classes[label]}" for label, count in join.missing.most_common(5) if label]
        print(f"  missing: {missing:,}" + (f" (most: {', '.join(worst)})" if worst else ""))
    for note in join.notes():
        if "not on disk" not in note:
            logger.warning(f"{name}: {note}")


def _warn_of_leaks(splits: Mapping[str, Join]) -> None:
    for one, other in combinations(splits, 2):
        if one.partition("_")[2] != other.partition("_")[2]:
            continue  # train_split1 and val_split2 were never meant to be disjoint
        if shared := splits[one].keys() & splits[other].keys():
            logger.warning(f"videos in both {one} and {other}: {len(shared)}, e.g. {min(shared)}")
