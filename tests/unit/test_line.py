"""A line of a terminal: what it shows after all that was written on it."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuectl.line import MAX_COLUMNS, Line, finally_shown, rendered
from queuectl.text import columns

_ACUTE = "\u0301"

# Each with what it leaves on a line.
SHOWN = [
    ("abc", "abc"),
    ("", ""),
    ("20%\r40%\r60%", "60%"),
    ("abc\rx", "xbc"),
    ("abc\r\x1b[Kx", "x"),
    ("abc\r\x1b[2Kx", "x"),
    ("abc\x1b[2Kx", "   x"),
    ("abcdef\b\b\x1b[K", "abcd"),
    ("abcdef\b\b\x1b[1Kx", "    xf"),
    ("abc\b\bX", "aXc"),
    ("\b\b\bx", "x"),
    ("abc\r", "abc"),
    ("a\tb", "a\tb"),
    ("a\tb\rxx", "xx      b"),
    ("a\tb\r12345678", "12345678b"),
    ("a\tb\r1234", "1234    b"),
    ("abcdefghij\r\tX", "abcdefghXj"),
    ("a\tb\r\tX", "a\tX"),
    ("a\tb\r\b\x1b[K", ""),
    ("\x1b[31mred\x1b[0m", "red"),
    ("a\x1b(B\x0fb", "ab"),
    ("\x1b[m\x1b[1;31;42mx", "x"),
    # wide characters and marks
    ("日本\rx", "x 本"),
    ("日本\r\bxy", "xy本"),
    ("ab日\rxy", "xy日"),
    ("abc\r日", "日c"),
    ("a日b\r本", "本 b"),
    ("日本\b\x1b[K", "日 "),
    (f"e{_ACUTE}x\rE", "Ex"),
    (f"ex\b{_ACUTE}", f"e{_ACUTE}x"),
    (f"ab\r{_ACUTE}", "\\u0301"),
    (f"日{_ACUTE}\rab", "ab"),
    ("🚀🚀\r.", ". 🚀"),
    ("a\u200db", "a\u200db"),
    ("a" + _ACUTE * 17 + "b", "a" + _ACUTE * 16 + "\\u0301b"),
    ("1\xa0000\u3000x", "1\xa0000\u3000x"),
    (f"\t{_ACUTE}", "\t\\u0301"),
    # what a terminal would obey
    ("\x1b[2Jx", "\\x1b[2Jx"),
    ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
    ("\x9b31m", "\\x9b31m"),
    ("\x1b[1A\x1b[5;5H", "\\x1b[1A\\x1b[5;5H"),
    ("\x1b[3K", "\\x1b[3K"),
    ("\x1bc", "\\x1bc"),
    ("\x1b[?25l", "\\x1b[?25l"),
    ("\x1b[>4;2m", "\\x1b[>4;2m"),
    ("\x1b[31", "\\x1b[31"),
    ("\x1b", "\\x1b"),
    ("\x1b[" + "1;" * 65 + "m", "\\x1b[" + "1;" * 65 + "m"),
    ("\x0b\x0c\x00\x7f\x85", "\\x0b\\x0c\\x00\\x7f\\x85"),
    ("\u202e\ufeff\u2028", "\\u202e\\ufeff\\u2028"),
    ("\udcff\udc80", "\\xff\\x80"),
    ("\ud800", "\\ud800"),
    ("\x1b\x1b[31mx", "\\x1bx"),
    ("\x1b[\x1b[31mx", "\\x1b[x"),
    ("\x1bP1$r\x1b\\", "\\x1bP1$r\\x1b\\"),
]


@pytest.mark.parametrize(("text", "shown"), SHOWN, ids=map(ascii, [text for text, _ in SHOWN]))
def test_line_shows_what_a_terminal_would(text: str, shown: str) -> None:
    """It is gone back in, written over and erased; what is more than that is text."""
    assert finally_shown(text) == shown


def styled(*parts: str) -> str:
    """Return what a line with styles shows of texts that came one after the other."""
    line = Line(has_styles=True)
    for part in parts:
        line.write(part, more=True)
    line.write("")
    return rendered(line.cells, line.styles)


def test_styles_belong_to_the_characters_that_were_written_in_them() -> None:
    """What is written over has the style of what is on top, and all ends without any."""
    assert styled("\x1b[31mred") == "\x1b[31mred\x1b[0m"
    assert styled("\x1b[31mred\x1b[0m plain") == "\x1b[31mred\x1b[0m plain"
    assert styled("\x1b[31mabc\r\x1b[32mx") == "\x1b[32mx\x1b[0m\x1b[31mbc\x1b[0m"
    assert styled("\x1b[31mab\x1b[1mc") == "\x1b[31mab\x1b[0m\x1b[31;1mc\x1b[0m"
    assert styled("\x1b[31mabc\x1b[2K\r\x1b[0mx") == "x"
    assert styled("\x1b[31m\x1b[0m") == ""


def test_sequence_that_is_cut_off_waits_for_its_end() -> None:
    """Wherever it is cut; and what never ends is text."""
    for at in range(1, len("\x1b[1;31m")):
        assert styled("\x1b[1;31m"[:at], "\x1b[1;31m"[at:] + "x") == "\x1b[1;31mx\x1b[0m"
    assert styled("\x1b[1;", "31", "mx") == "\x1b[1;31mx\x1b[0m"
    assert styled("a\x1b", "[2", "Kb") == " b"
    assert styled("a\x1b[1;") == "a\\x1b[1;"
    assert styled("a\x1b[", "Ax") == "a\\x1b[Ax"
    assert styled("\x1b[", "1" * 60, "1" * 60, "1" * 60, "mx") == "\\x1b[" + "1" * 180 + "mx"


_pieces = st.sampled_from(
    [
        "\x1b[31m",
        "\x1b[K",
        "\x1b[1K",
        "\x1b[2K",
        "\x1b[0m",
        "\r",
        "\b",
        "\t",
        "\x1b",
        "[",
        "日",
        "🚀",
        _ACUTE,
        "abc",
        "x",
        "\x9b",
        "\udcff",
        "\u200d",
        "\x1b(B",
        "\x1b]0;t\x07",
        "1",
        ";",
        "m",
        "\x1b[38:2::1:2:3m",
    ]
)
texts = st.lists(_pieces | st.text(st.characters(exclude_characters="\n"), max_size=3)).map("".join)
_STYLE = re.compile(r"\x1b\[[0-9;:]+m(?P<text>[^\x1b]*)\x1b\[0m")


@given(texts, st.integers(0, 100))
def test_line_is_the_same_wherever_it_was_cut(text: str, at: int) -> None:
    """How much is read at a time changes nothing."""
    assert styled(text[:at], text[at:]) == styled(text)


@given(texts)
def test_line_is_harmless(text: str) -> None:
    """A tab is the only control character, each style is taken back, and cells are columns."""
    line = Line(has_styles=True)
    line.write(text)
    shown = rendered(line.cells, line.styles)
    plain = _STYLE.sub(lambda match: match["text"], shown)
    assert plain == finally_shown(text)
    assert not re.search(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\ud800-\udfff]", plain)
    assert len(line.cells) == len(line.styles)
    if "\t" not in plain:
        assert columns(plain) == len(line.cells)


def test_line_is_bounded() -> None:
    """A line without an end is handed on in parts, and nothing of it is lost."""
    parts: list[str] = []

    def take() -> None:
        assert len(line.cells) <= MAX_COLUMNS
        parts.append("".join(line.cells))
        line.clear()

    line = Line(when_full=take)
    text = ("x" * 1000 + "日" * 1001 + "\t") * 20
    for at in range(0, len(text), 7000):
        line.write(text[at : at + 7000], more=True)
    take()
    assert "".join(parts) == text


@given(st.lists(st.sampled_from(["x" * 5000, "日" * 2049, "\t" * 600, "\b", "\r", "\x1b[2K"])))
def test_line_is_bounded_whatever_comes(pieces: list[str]) -> None:
    """Nor do tabs and erasing make it longer."""

    def clear() -> None:
        line.clear()

    line = Line(when_full=clear)
    for piece in pieces:
        line.write(piece, more=True)
        assert len(line.cells) <= MAX_COLUMNS
