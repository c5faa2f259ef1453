"""Protocols by name: what they fix, and what contradicts them."""

import pytest

from stvideo.core.errors import StvideoError
from stvideo.data.clips.protocols import PROTOCOLS, find_protocol, protocol_table


@pytest.mark.parametrize(
    ("name", "views", "sampling"),
    [
        ("k400-1x3", (1, 3), "stride"),
        ("k400-4x3", (4, 3), "stride"),
        ("k400-5x3", (5, 3), "stride"),
        ("ssv2-1x3", (1, 3), "segment"),
        ("ssv2-2x3", (2, 3), "segment"),
        ("center", (1, 1), None),
        ("7x2", (7, 2), None),
        ("10 x 1", (10, 1), None),
        ("4×3", (4, 3), None),
    ],
)
def test_a_name_fixes_views_and_sampling(name, views, sampling):
    protocol = find_protocol(name)
    assert (protocol.clips, protocol.crops) == views
    assert protocol.views == "{}x{}".format(*views)
    assert protocol.sampling == sampling
    assert protocol.name in protocol.title
    for other in ("stride", "segment"):
        if sampling in (None, other):
            protocol.check_sampling(other)
        else:
            with pytest.raises(StvideoError, match=rf"data.sampling={sampling}.*trained with data.sampling={other}"):
                protocol.check_sampling(other)


def test_official_sizes_belong_to_data_with_the_official_classes():
    assert find_protocol("k400-1x3").split_for(400).videos == 19_881
    assert find_protocol("ssv2-2x3").split_for(174).videos == 24_777
    assert find_protocol("k400-1x3").split_for(3) is None
    assert find_protocol("1x3").split_for(400) is None


@pytest.mark.parametrize("text", ["", "3", "1x", "0x3", "2x-1", "axb", "1x3x2"])
def test_bad_views_are_refused(text):
    with pytest.raises(StvideoError, match="views"):
        find_protocol(text)


def test_a_misspelt_name_is_told_the_right_one():
    with pytest.raises(StvideoError, match=r"did you mean 'k400-1x3'"):
        find_protocol("k400-1x33")


def test_the_table_names_all_with_their_sources():
    lines = protocol_table().splitlines()
    assert [line.split()[0] for line in lines] == list(PROTOCOLS)
    assert all(protocol.source in line for protocol, line in zip(PROTOCOLS.values(), lines, strict=True))
