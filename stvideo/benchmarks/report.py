"""A report of tables as aligned text, CSV, Markdown and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stvideo.core.files import write_atomically
from stvideo.runtime.run_folder import prepare_output


def show_ratio(value: Mapping[str, float]) -> str:
    """Format the median, low and high of a ratio: ``1.93x (1.90-1.97)``."""
    return f"{value['median']:.2f}x ({value['low']:.2f}-{value['high']:.2f})"


@dataclass(frozen=True)
class Column:
    """One column for people.

    Attributes:
        key: of the row's value; a column in which no row of a section has a value is left out there.
        title: its heading.
        show: turns a value into text; missing values (None) are shown as an empty cell.
        left: align to the left instead of to the right.
        star: key of a value that puts a star behind this one where it is present.
    """

    key: str
    title: str
    show: Callable[[Any], str] = str
    left: bool = False
    star: str | None = None

    def cell(self, row: Mapping[str, Any]) -> str:
        """Format the row's value."""
        if row.get(self.key) is None:
            return ""
        return self.show(row[self.key]) + ("*" if self.star and row.get(self.star) else "")


@dataclass
class Section:
    """Rows under one heading.

    Attributes:
        key: short name, also a column of the CSV file.
        title: the heading.
        rows: values by column key; JSON-serialisable. They may hold more than the columns show.
    """

    key: str
    title: str
    rows: list[dict[str, Any]]


@dataclass
class Report:
    """Sections with the same columns, and notes under them.

    Attributes:
        title: of the whole.
        columns: shown to people; CSV and JSON hold every value of the rows.
        sections: the tables.
        notes: lines below them.
        machine: what measured numbers depend on, empty where nothing was measured.
    """

    title: str
    columns: Sequence[Column]
    sections: list[Section]
    notes: list[str] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        """Format for a terminal; a column is as wide in every section."""
        rows = [row for section in self.sections for row in section.rows]
        widths = {c.key: max([len(c.title), *(len(c.cell(row)) for row in rows)]) for c in self.columns}
        lines = [self.title]
        for section in self.sections:
            columns = self._used_columns(section)
            table = [[c.title for c in columns], ["-" * widths[c.key] for c in columns]]
            table += [[c.cell(row) for c in columns] for row in section.rows]
            lines += ["", section.title]
            for cells in table:
                padded = (
                    cell.ljust(widths[c.key]) if c.left else cell.rjust(widths[c.key])
                    for cell, c in zip(cells, columns, strict=True)
                )
                lines.append("  ".join(padded).rstrip())
        return "\n".join([*lines, *self._listed_notes()]) + "\n"

    def markdown(self) -> str:
        """Format as GitHub tables, one for each section."""
        lines = [f"## {self.title}"]
        for section in self.sections:
            columns = self._used_columns(section)
            table = [[c.title for c in columns], [":---" if c.left else "---:" for c in columns]]
            table += [[c.cell(row).replace("|", "\\|") for c in columns] for row in section.rows]
            lines += ["", f"### {section.title}", "", *("| " + " | ".join(cells) + " |" for cells in table)]
        return "\n".join([*lines, *self._listed_notes()]) + "\n"

    def csv(self) -> str:
        """Write one line per row with every plain value; lists and mappings as JSON."""
        rows = [{"section": section.key, **row} for section in self.sections for row in section.rows]
        stream = io.StringIO(newline="")
        writer = csv.DictWriter(stream, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: json.dumps(v) if isinstance(v, (list, dict)) else v for k, v in row.items()})
        return stream.getvalue()

    def json(self) -> str:
        """Write everything, machine and notes included."""
        content = {
            "title": self.title,
            "machine": self.machine,
            "sections": [{"key": s.key, "title": s.title, "rows": s.rows} for s in self.sections],
            "notes": self.notes,
        }
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def write(self, folder: str | Path, name: str) -> list[Path]:
        """Write ``name``.txt, .csv, .md and .json into ``folder``; returns their paths.

        Raises:
            StvideoError: the folder cannot be written to.
        """
        prepare_output(Path(folder))
        paths = []
        for suffix, content in (("txt", self.text), ("csv", self.csv), ("md", self.markdown), ("json", self.json)):
            paths.append(Path(folder) / f"{name}.{suffix}")
            write_atomically(paths[-1], content())
        return paths

    def _used_columns(self, section: Section) -> list[Column]:
        first = self.columns[0]
        return [c for c in self.columns if c is first or any(c.cell(row) for row in section.rows)]

    def _listed_notes(self) -> list[str]:
        return ["", *(f"- {note}" for note in self.notes)] if self.notes else []
