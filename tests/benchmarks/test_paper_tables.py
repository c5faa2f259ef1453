"""The published tables: the data, the counting, the words about the difference, the sums of a measurement."""

import csv
import io
import json
import re
from dataclasses import replace

import pytest

from stvideo import StvideoError
from stvideo.benchmark import main
from stvideo.benchmarks.paper_tables import NOT_HERE, choose_tables, count_row, judge
from stvideo.benchmarks.published import PublishedRow as Row
from stvideo.benchmarks.published import load_tables
from stvideo.benchmarks.report import Column, Report, Section

TABLES = {table.key: table for table in load_tables()}

# How far a count may lie from the published figure, upwards and (where keys are projected once) downwards.
TOLERANCES = {
    "deit": (0.01, 0.01),
    "swin": (0.02, 0.05),
    "stvitr": (0.01, 0.05),
    "dense-prediction": (0.04, 0.05),
    "evit": (0.01, 0.01),
    "lvvit": (0.03, 0.03),
    "timesformer": (0.01, 0.01),
    "video-swin": (0.03, 0.05),
}


@pytest.mark.parametrize("key", TOLERANCES)
def test_every_row_counts_as_published(key):
    above, below = TOLERANCES[key]
    for row in TABLES[key].rows:
        result = count_row(row)
        counted = result["counted_gmacs"]
        assert counted, f"{row.label}: {result['agreement']}"
        if row.gmacs is None:
            continue
        published, rounding = float(row.gmacs), 0.5 * 10 ** -len(row.gmacs.partition(".")[2])
        wider = 2 if row.label.startswith(("DeiT-T", "STViT-DeiT-T")) else 1
        assert (published - rounding) * (1 - below * wider) <= counted, row.label
        assert counted <= (published + rounding) * (1 + above * wider), row.label
        assert result["agreement"] != "DIFFERS", row.label


@pytest.mark.parametrize(("letter", "parameters"), [("S", 49_625_518), ("B", 87_812_336)])
def test_the_recovery_network_has_the_published_parameters(letter, parameters):
    row = next(row for row in TABLES["stvitr"].rows if row.label == f"STViT-R-Swin-{letter}")
    assert count_row(row)["parameters"] == parameters == int(row.parameters)


def test_published_data_is_consistent():
    for table in TABLES.values():
        labels = [row.label for row in table.rows]
        assert len(set(labels)) == len(labels)
        for row in table.rows:
            assert row.dense is None or row.dense in labels
            assert row.speedup is None or (row.dense and float(row.speedup) > 1)
            assert row.gmacs is None or float(row.gmacs) > 0
            assert row.model is None or table.key != "others"
    assert {key: len(table.rows) for key, table in TABLES.items() if key != "others"} == {
        "deit": 17, "swin": 15, "stvitr": 4, "dense-prediction": 8, "evit": 18, "lvvit": 10, "timesformer": 12,
        "video-swin": 5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("gmacs", "tolerance", "less", "counted", "words"),
    [
        ("3.5", 0.01, 0.0, 3.4501, "as printed"),
        ("3.5", 0.01, 0.0, 3.44, "within 1 % of 3.45"),
        ("3.5", 0.01, 0.0, 3.58, "within 1 % of 3.55"),
        ("3.50", 0.01, 0.0, 3.52, "within 1 %"),
        ("3.50", 0.01, 0.0, 3.40, "DIFFERS"),
        ("3.50", 0.01, 0.05, 3.40, "less, see note"),
        ("3.50", 0.01, 0.05, 3.28, "DIFFERS"),
        ("3.50", 0.01, 0.05, 3.60, "DIFFERS"),
        ("134", 0.04, 0.01, 138.7, "within 4 %"),
    ],
)
def test_agreement_in_words(gmacs, tolerance, less, counted, words):
    assert judge(Row("x", gmacs=gmacs, tolerance=tolerance, may_be_less=less), counted) == words


def test_a_row_without_its_model_is_not_made_up():
    result = count_row(Row("x", "swin_gigantic_patch4_window7_224", gmacs="9.9"))
    assert result["agreement"] == NOT_HERE
    assert result["counted_gmacs"] is None
    assert result["difference"] is None


def test_tables_in_every_format(tmp_path, capsys):
    assert main(["paper-tables", "rows=stvitr,others", f"output={tmp_path}/tables"]) == 0
    shown = capsys.readouterr().out
    folder = tmp_path / "tables"
    assert (folder / "paper-tables.txt").read_text() in shown
    labels = [row.label for key in ("stvitr", "others") for row in TABLES[key].rows]

    rows = list(csv.DictReader(io.StringIO((folder / "paper-tables.csv").read_text())))
    assert [row["row"] for row in rows] == labels
    assert rows[1]["published_gmacs"] == "5.83"
    assert float(rows[1]["counted_gmacs"]) == pytest.approx(5.62, abs=0.01)
    assert rows[1]["published_parameters"] == "49625518"

    content = json.loads((folder / "paper-tables.json").read_text())
    assert [row["row"] for section in content["sections"] for row in section["rows"]] == labels
    assert any("projected once" in note for note in content["notes"])

    for table in re.split(r"\n### .*\n\n", (folder / "paper-tables.md").read_text())[1:]:
        lines = [line for line in table.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) == 1
    assert sum(label in (folder / "paper-tables.md").read_text() for label in labels) == len(labels)


def test_text_columns_stand_under_their_titles():
    columns = (Column("a", "name", left=True), Column("b", "value", "{:.1f}".format), Column("c", "never"))
    sections = [
        Section("s", "S", [{"a": "long name", "b": 1.0}, {"a": "x", "b": 12.5}]),
        Section("t", "T", [{"a": "y"}]),
    ]
    report = Report("R", columns, sections, ["a note"])
    assert report.text().splitlines() == [
        "R", "", "S", "name       value", "---------  -----", "long name    1.0", "x           12.5",
        "", "T", "name", "---------", "y", "", "- a note",
    ]  # fmt: skip


def test_rows_are_chosen_by_name():
    assert [table.key for table in choose_tables("evit, deit")] == ["deit", "evit"]
    assert len(choose_tables("all")) == len(TABLES)
    with pytest.raises(StvideoError, match=r"rows=evti: no such table \(did you mean 'evit'\?\); there are: all, deit"):
        choose_tables("evti")


def test_a_measured_speedup_stands_beside_the_published_one(tmp_path):
    arguments = ["paper-tables", "rows=deit", "measure=true", "rounds=1", "batch_size=1", f"output={tmp_path}"]
    table = next(table for table in load_tables() if table.key == "deit")
    fewer = replace(table, rows=[row for row in table.rows if "tiny" in (row.model or "")][:2])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stvideo.benchmarks.paper_tables.load_tables", lambda: [fewer])
        assert main(arguments) == 0
    rows = json.loads((tmp_path / "paper-tables.json").read_text())["sections"][0]["rows"]
    measured = [row["measured_speedup"] for row in rows if row["measured_speedup"]]
    assert measured and all(value["low"] <= value["median"] <= value["high"] for value in measured)
