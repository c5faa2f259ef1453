"""Joined splits -> what training reads: list files, class names, and a report beside every list.

What the data tools for Kinetics, Something-Something, UCF101, HMDB51 and class folders have in common.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stvideo.core.errors import StvideoError
from stvideo.core.files import write_atomically
from stvideo.core.messages import logger
from stvideo.data.lists.split_report import read_report, report_path, write_report
from stvideo.data.lists.joining import Join, OnDisk, Span

_EXAMPLES = 20  # of files that no annotation names, in a report


@dataclass
class ListSettings:
    """What every tool that writes lists can be given as ``key=value``."""

    root: str = ""
    output: str = ""
    overwrite: bool = False


def scan_root(folder: str) -> OnDisk:
    """All video files below the setting ``root``; raises `StvideoError` if there is none."""
    if not folder:
        raise StvideoError("root=FOLDER is missing: the folder that holds the videos, at any depth; --help tells more")
    root = Path(folder).expanduser()
    if not root.exists():
        raise StvideoError(f"root={root}: no such folder")
    if not root.is_dir():
        raise StvideoError(f"root={root}: this is a file, the folder that holds the videos is expected")
    on_disk = OnDisk.scan(
        root, sizes=True, progress=lambda paths: tqdm(paths, desc=f"{root}", unit=" videos", disable=None)
    )
    if not on_disk.files:
        archives = on_disk.left_out.counts.get("archive", 0)
        hint = f"; it holds {archives} archives, e.g. {on_disk.left_out.examples['archive']}: unpack them first"
        raise StvideoError(f"root={root}: no videos in it" + (hint if archives else ""))
    return on_disk


def write_splits(splits: Mapping[str, Join], classes: Sequence[str], on_disk: OnDisk, settings: ListSettings) -> None:
    """Write OUTPUT/NAME.txt with its report for every split, and OUTPUT/classes.txt; tell what is in them.

    Videos of a split without labels are listed by path alone, in OUTPUT/NAME.unlabeled.txt.

    Raises:
        StvideoError: nothing was found, or a file with other content is in the way; nothing is written then.
    """
    root = on_disk.root
    output = Path(settings.output).expanduser() if settings.output else root
    if not any(join.found for join in splits.values()):
        wanted = sum(join.official for join in splits.values())
        raise StvideoError(
            f"root={root}: none of the {wanted} annotated videos is among its {len(on_disk.files)} video files"
            f" (e.g. {on_disk.extra()[0] if on_disk.extra() else 'none'})"
        )
    odd = next((name for name in classes if name.strip().splitlines() != [name]), None)
    if odd is not None:
        raise StvideoError(f"class name {odd!r}: a line of classes.txt cannot hold it; rename the class")
    numbers = {name: number for number, name in enumerate(classes)}
    texts: dict[Path, str] = {}
    lists: dict[str, Path] = {}
    for name, join in splits.items():
        if join.found:
            labelled = None not in join.classes
            lists[name] = output / (f"{name}.txt" if labelled else f"{name}.unlabeled.txt")
            texts[lists[name]] = list_text(join.clips(), numbers)
    class_file = output / "classes.txt"
    if classes:
        texts[class_file] = "".join(f"{name}\n" for name in classes)
    _check_free(texts, lists.values(), settings.overwrite)
    common = _common_report(on_disk)
    try:
        output.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            write_atomically(path, text)
        for name, path in lists.items():
            write_report(path, {"split": name, **splits[name].report(), **common})
    except OSError as error:
        raise StvideoError(
            f"{error.filename or output}: cannot be written ({error.strerror}); name another output=FOLDER"
        ) from None
    for name, join in splits.items():
        _tell_split(name, join, lists.get(name), texts)
    _tell_leaks(splits)
    _tell_disk(on_disk)
    use = [f"data.root={root}"]
    for side in ("train", "val"):
        use += [f"data.{side}={path}" for name, path in lists.items() if name.startswith(side)][:1]
    if classes:
        print(f"classes: {len(classes)} -> {class_file}")
        use.append(f"data.classes={class_file}")
    print(f"use: {' '.join(use)}")


def list_text(clips: Iterable[tuple[str, str | None, Span | None]], numbers: Mapping[str, int]) -> str:
    """The content of a list file: ``path<tab>label[<tab>start<tab>end]`` a line; without label the path alone."""
    lines = []
    for path, label, span in clips:
        columns = [quoted(path)]
        if label is not None:
            columns.append(str(numbers[label]))
        if span is not None:
            columns += [_seconds(span[0]), _seconds(span[1])]
        lines.append("\t".join(columns) + "\n")
    return "".join(lines)


def quoted(path: str) -> str:
    """``path`` as a column of a list, in quotes where it would be read as something else."""
    quotes = path[0] in "#\"'" or "\t" in path or path != path.strip()
    return '"' + path.replace('"', '""') + '"' if quotes else path


def _seconds(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")


def _check_free(texts: Mapping[Path, str], lists: Iterable[Path], overwrite: bool) -> None:
    """Refuse to replace what somebody else may need."""
    for path in [*texts, *map(report_path, lists)]:
        if path.is_dir():
            raise StvideoError(f"{path}: this is a folder, a file is to be written there; name another output=FOLDER")
    if overwrite:
        return
    for path, text in texts.items():
        if path.exists() and hashlib.sha256(path.read_bytes()).digest() != hashlib.sha256(text.encode()).digest():
            raise StvideoError(
                f"{path}: already there with other content; overwrite=true replaces it, or name another output=FOLDER"
            )
    for path in lists:
        read_report(path)  # complains of one that is none


def _common_report(on_disk: OnDisk) -> dict[str, Any]:
    """What holds for the folder, whatever the split."""
    extra = on_disk.extra()
    return {
        "root": str(on_disk.root),
        "second_copies": on_disk.copies(),
        "extra_files": {"count": len(extra), "examples": extra[:_EXAMPLES]},
        "passed_over": on_disk.left_out.counts,
    }


def _tell_split(name: str, join: Join, path: Path | None, texts: Mapping[Path, str]) -> None:
    share = join.found / join.official if join.official else 0
    print(f"{name}: {join.found:,} of {join.official:,} videos ({share:.1%}) -> {path or 'no list'}")
    if path is not None:
        print(f"  sha256 {hashlib.sha256(texts[path].encode()).hexdigest()}")
    if missing := sum(join.missing.values()):
        worst = [f"{label} {count} of {join.classes[label]}" for label, count in join.missing.most_common(5) if label]
        print(f"  missing: {missing:,}" + (f" (most: {', '.join(worst)})" if worst else ""))
    for note in join.notes():
        if "not on disk" not in note:
            logger.warning(f"{name}: {note}")


def _tell_leaks(splits: Mapping[str, Join]) -> None:
    names = list(splits)
    for number, one in enumerate(names):
        for other in names[number + 1 :]:
            if one.partition("_")[2] != other.partition("_")[2]:
                continue  # train_split1 and val_split2 were never meant to be disjoint
            if shared := splits[one].keys() & splits[other].keys():
                logger.warning(f"videos in both {one} and {other}: {len(shared)}, e.g. {min(shared)}")


def _tell_disk(on_disk: OnDisk) -> None:
    extra, copies = on_disk.extra(), on_disk.copies()
    if extra:
        print(f"files that these annotations do not name: {len(extra):,} (e.g. {extra[0]})")
    if copies:
        print(f"second copies of videos, not used: {copies:,}")
    for reason, count in sorted(on_disk.left_out.counts.items()):
        print(f"passed over: {count:,} x {reason} (e.g. {on_disk.left_out.examples[reason]})")
