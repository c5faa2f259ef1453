"""How complete a list of videos is: a small JSON file beside the list (``val.txt`` -> ``val.report.json``).

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
from stvideo.core.files import write_atomically


def report_path(list_path: Path) -> Path:
    """Where the report of ``list_path`` lies."""
    return list_path.with_suffix(".report.json")


def write_report(list_path: Path, report: dict[str, Any]) -> Path:
    """Write ``report`` beside its list, whose SHA-256 is added; returns where."""
    target = report_path(list_path)
    content = {**report, "sha256": hashlib.sha256(list_path.read_bytes()).hexdigest()}
    write_atomically(target, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return target


def read_report(list_path: Path) -> dict[str, Any] | None:
    """The report beside ``list_path``; None if there is none.

    Raises:
        StvideoError: it is there but not a report.
    """
    path = report_path(list_path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise StvideoError(f"{path}: not a readable report of a list ({error}); delete it or write it again") from None
    if not isinstance(content, dict) or not isinstance(content.get("official"), int):
        raise StvideoError(f"{path}: no number under 'official' in it; delete it or write it again")
    return content


def official_size(list_path: Path) -> int | None:
    """Videos in the official split that ``list_path`` was made from; None if nobody wrote that down."""
    report = read_report(list_path)
    return None if report is None else int(report["official"])
