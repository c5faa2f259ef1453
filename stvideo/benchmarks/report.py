"""A table of results as aligned text, CSV, Markdown and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stvideo.runtime.run_folder import prepare_output, write_atomically


def _plain(value: Any) -> str:
    return str(value)


def show_ratio(value: dict[str, float]) -> str:
    """``1.93x (1.90-1.97)``."""
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
    show: Callable[[Any], str] = _plain
    left: bool = False
    star: str | None = None


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
        columns: what people are shown; CSV and JSON hold every value of the rows.
        machine: what measured numbers stand on, empty where nothing was measured.
    """

    title: str
    columns: Sequence[Column]
    sections: list[Section]
    notes: list[str] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        """Aligned columns for a terminal; a column is as wide in every section."""
        rows = [row for section in self.sections for row in section.rows]
        widths = {c.key: max([len(c.title), *(len(_cell(c, row)) for row in rows)]) for c in self.columns}

        def line(columns: Sequence[Column], values: Sequence[str]) -> str:
            cells = zip(values, columns, strict=True)
            padded = (v.ljust(widths[c.key]) if c.left else v.rjust(widths[c.key]) for v, c in cells)
            return "  ".join(padded).rstrip()

        lines = [self.title]
        for section in self.sections:
            columns = self._used_columns(section)
            lines += ["", section.title, line(columns, [c.title for c in columns])]
            lines.append("  ".join("-" * widths[c.key] for c in columns))
            lines += [line(columns, [_cell(c, row) for c in columns]) for row in section.rows]
        if self.notes:
            lines += ["", *(f"- {note}" for note in self.notes)]
        return "\n".join(lines) + "\n"

    def markdown(self) -> str:
        """GitHub tables, one for each section."""
        lines = [f"## {self.title}"]
        for section in self.sections:
            columns = self._used_columns(section)
            lines += ["", f"### {section.title}", ""]
            lines.append("| " + " | ".join(column.title for column in columns) + " |")
            lines.append("|" + "|".join(" :--- " if column.left else " ---: " for column in columns) + "|")
            for row in section.rows:
                lines.append("| " + " | ".join(_cell(column, row).replace("|", "\\|") for column in columns) + " |")
        if self.notes:
            lines += ["", *(f"- {note}" for note in self.notes)]
        return "\n".join(lines) + "\n"

    def csv(self) -> str:
        """One line per row with every plain value; lists and mappings as JSON."""
        rows = [{"section": section.key, **row} for section in self.sections for row in section.rows]
        names = list(dict.fromkeys(name for row in rows for name in row))
        stream = io.StringIO(newline="")
        writer = csv.DictWriter(stream, names, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: json.dumps(v) if isinstance(v, (list, dict)) else v for k, v in row.items()})
        return stream.getvalue()

    def json(self) -> str:
        """Everything, machine and notes included."""
        content = {
            "title": self.title,
            "machine": self.machine,
            "sections": [{"key": s.key, "title": s.title, "rows": s.rows} for s in self.sections],
            "notes": self.notes,
        }
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def write(self, folder: str | Path, name: str) -> list[Path]:
        """Write ``name``.txt, .csv, .md and .json into ``folder``.

        Raises:
            StvideoError: the folder cannot be written to.
        """
        folder = Path(folder)
        prepare_output(folder)
        contents = {"txt": self.text(), "csv": self.csv(), "md": self.markdown(), "json": self.json()}
        paths = []
        for suffix, content in contents.items():
            path = folder / f"{name}.{suffix}"
            write_atomically(path, content)
            paths.append(path)
        return paths

    def _used_columns(self, section: Section) -> list[Column]:
        first = self.columns[0].key
        return [c for c in self.columns if c.key == first or any(_cell(c, row) for row in section.rows)]


def _cell(column: Column, row: dict[str, Any]) -> str:
    value = row.get(column.key)
    if value is None:
        return ""
    return column.show(value) + ("*" if column.star and row.get(column.star) else "")
