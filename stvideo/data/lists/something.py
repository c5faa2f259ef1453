"""Read official Something-Something annotations: labels.json, and lists of ``{"id": "74225", "template": "..."}``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from stvideo.core.errors import StvideoError, nearest
from stvideo.data.lists.index import VideoIndex
from stvideo.data.lists.joining import Annotation, Join, OnDisk
from stvideo.data.lists.listfiles import read_classes
from stvideo.data.lists.text_files import SHOWN, read_json, shown

LABEL_FILES = ("labels.json", "something-something-v2-labels.json")


def find_labels(folder: Path) -> Path | None:
    """Find the class list in ``folder`` by one of its official names."""
    return next((folder / name for name in LABEL_FILES if (folder / name).is_file()), None)


def without_brackets(template: str) -> str:
    """Write a template as labels.json does: "Putting [something] on a surface" has no brackets there."""
    return template.replace("[", "").replace("]", "").strip()


def ssv2_entries(
    path: Path, classes: Sequence[str], answers: Mapping[str, str] | None = None, unlabeled: bool = False
) -> Iterator[Annotation]:
    """Read the videos of train.json, validation.json or test.json.

    Args:
        classes: class names, of which every template has to be one.
        answers: labels by identifier, for a test split, whose videos have none.
        unlabeled: let videos without a label pass.

    Raises:
        StvideoError: the file is no list of videos, or a label is missing or unknown; says which entry.
    """
    videos = read_json(path)
    if not isinstance(videos, list) or not videos:
        raise StvideoError(f"{path}: expected a JSON list of videos")
    numbers = {name: number for number, name in enumerate(classes)}
    for position, video in enumerate(videos):
        where = f"{path}: entry {position}"
        if not isinstance(video, dict) or "id" not in video:
            raise StvideoError(f"{where}: expected an object with 'id' and 'template'")
        number = str(video["id"])
        template = video.get("template") or (answers or {}).get(number)
        if template is None and not unlabeled:
            raise StvideoError(f"{where}: video {number[:SHOWN]} has no template (the test split has no labels)")
        label = None if template is None else without_brackets(str(template))
        if label is not None and label not in numbers:
            raise StvideoError(
                f"{where}: label {shown(label)} is not in the class list{nearest(label[:SHOWN], numbers)}"
            )
        yield Annotation(position, label, number, (number,))


def read_ssv2(path: Path, root: Path, classes: Sequence[str] | None = None) -> VideoIndex:
    """Join Something-Something's train.json or validation.json with the videos below ``root``.

    Videos are called ``ID.webm`` (or another video format), in any folder. ``classes`` None reads the labels.json
    beside ``path``. Videos that are not there are left out and counted in the notes.
    """
    if classes is None:
        labels = find_labels(path.parent)
        if labels is None:
            raise StvideoError(f"{path}: no labels.json beside it; name it with data.classes")
        classes = read_classes(labels)
    join = Join(OnDisk.scan(root))
    for entry in ssv2_entries(path, classes):
        join.add(entry)
    return join.index(classes, path)
