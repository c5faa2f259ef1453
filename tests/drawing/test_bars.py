"""Bars of text."""

from hypothesis import given
from hypothesis import strategies as st

from stvideo.drawing.bars import text_bars
from tests.properties import unhurried


def test_names_align_and_bars_have_the_length_of_their_share():
    lines = text_bars([("arm wrestling", 0.75), ("b", 0.25), ("c", 0.0)], width=8)
    assert lines == [
        "arm wrestling  ██████     75.0 %",
        "b              ██         25.0 %",
        "c                          0.0 %",
    ]


def test_plain_characters_where_the_terminal_has_no_blocks():
    assert text_bars([("a", 0.5)], width=4, encoding="ascii") == ["a  ##     50.0 %"]
    assert text_bars([("a", 1.0)], width=4, encoding=None) == ["a  ####  100.0 %"]


@unhurried
@given(st.lists(st.tuples(st.text(max_size=80), st.floats(0, 1)), max_size=6))
def test_one_printable_line_per_class_of_equal_width(predictions):
    lines = text_bars(predictions)
    assert len(lines) == len(predictions) and len({len(line) for line in lines}) <= 1
    assert all(line.isprintable() for line in lines)
