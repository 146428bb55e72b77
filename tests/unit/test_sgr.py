"""Colours and styles: what is known is written again, and nothing else."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuectl.sgr import NO_STYLE, changed

_OURS = re.compile(r"(\x1b\[[0-9]{1,3}([;:][0-9]{1,3})*m)?")


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        (("31",), "31"),
        (("01;31",), "1;31"),
        (("1", "31", "42"), "1;31;42"),
        (("31", "32"), "32"),
        (("31", ""), ""),
        (("31", "0"), ""),
        (("31;0;1",), "1"),
        (("1;2;31", "22"), "31"),
        (("3;4;5;7;9;53", "23;24;25;27;29;55"), ""),
        (("91;103",), "91;103"),
        (("31;41", "39"), "41"),
        (("31;41", "49"), "31"),
        (("4:3",), "4:3"),
        (("4:3", "4:0"), ""),
        (("4", "21"), "21"),
        (("38;5;196",), "38;5;196"),
        (("48;2;1;2;3",), "48;2;1;2;3"),
        (("58;5;9", "59"), ""),
        (("38:2::1:2:3",), "38;2;1;2;3"),
        (("38:2:1:2:3",), "38;2;1;2;3"),
        (("38:5:7",), "38;5;7"),
        (("38;5;1;1",), "38;5;1;1"),
        (("38;2;;;",), "38;2;0;0;0"),
        (("38:2:0:1:2:3:9:9",), "38;2;1;2;3"),
        # absurd
        (("38;5;256",), ""),
        (("38;5;-1",), ""),
        (("38;9;1",), "1"),
        (("38",), ""),
        (("38;2;1;2",), "38;2;1;2;0"),
        (("38:7:1",), ""),
        (("4:9",), ""),
        (("4:3:1",), ""),
        (("9" * 100,), ""),
        (("0" * 100 + "1",), "1"),
        (("8",), ""),
        (("10;20;26;50;73;1000",), ""),
        ((";" * 100 + "1",), "1"),
        ((":" * 100,), ""),
        (("31:5",), ""),
        (("1;38;5;999;4",), "1;4"),
        (("38:2:::::::1",), "38;2;0;0;0"),
        ((":",), ""),
    ],
)
def test_style_is_what_the_parameters_choose(parameters: tuple[str, ...], expected: str) -> None:
    """Each sequence changes what is on already, and one that makes no sense changes nothing."""
    style = NO_STYLE
    for each in parameters:
        style = changed(style, each)
    assert style.sequence == (f"\x1b[{expected}m" if expected else "")


@given(st.lists(st.text("0123456789:;") | st.from_regex(r"([0-9]{0,3}[;:]){0,9}", fullmatch=True)))
def test_any_parameters_make_a_short_sequence(parameters: list[str]) -> None:
    """However many come, what is written is a known form of bounded length."""
    style = NO_STYLE
    for each in parameters:
        style = changed(style, each)
        assert _OURS.fullmatch(style.sequence)
        assert len(style.sequence) < 100
