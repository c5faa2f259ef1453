"""Say how complete a list of videos is: a small JSON file beside the list (``val.txt`` -> ``val.report.json``).

The data tools write it; evaluation reads ``official`` from it to say how much of the official split was evaluated.
Keys of every report: ``official`` (videos in the official split), ``found``, ``missing``, ``share`` (found / official),
``missing_per_class``, ``sha256`` (of the list file). Tools may add others.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from stvideo.core.errors import StvideoError
from stvideo.core.files import exists, write_atomically
from stvideo.data.lists.text_files import read_json


def report_path(list_path: Path) -> Path:
    """Name the report of ``list_path``."""
    return list_path.with_suffix(".report.json")


def write_report(list_path: Path, report: dict[str, Any]) -> None:
    """Write ``report`` beside its list, whose SHA-256 is added."""
    content = {**report, "sha256": hashlib.sha256(list_path.read_bytes()).hexdigest()}
    write_atomically(report_path(list_path), json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_report(list_path: Path) -> dict[str, Any] | None:
    """Read the report beside ``list_path``; None if there is none. Raises `StvideoError` if it is something else."""
    path = report_path(list_path)
    if not exists(path):
        return None
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("official"), int):
        raise StvideoError(f"{path}: no number under 'official' in it; delete it or write it again")
    return content


def official_size(list_path: Path) -> int | None:
    """Videos in the official split that ``list_path`` was made from; None if nobody wrote that down."""
    report = read_report(list_path)
    return None if report is None else int(report["official"])
