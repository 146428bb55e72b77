"""Text on a terminal: what is shown of it, and how many columns it takes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuectl.cli.output import table_lines
from queuectl.text import clip, columns, printable, shortened

_ACUTE = "\u0301"
_FAMILY = "\U0001f468\u200d\U0001f469"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0), ("abc", 3), ("äöü", 3), ("日本語", 6), ("ｱ", 1), ("\uff21", 2), ("🚀", 2),
        (f"e{_ACUTE}", 1), ("한국", 4), ("\u1112\u1161\u11ab", 2), ("“quoted”", 8), ("█▌", 2),
        ("\u2764\ufe0f", 1), ("\U00020000", 2),
    ],
)  # fmt: skip
def test_columns_are_those_of_a_terminal(text: str, expected: int) -> None:
    """East Asian characters and emoji take two, marks and the later parts of a syllable none."""
    assert columns(text) == expected


@given(st.text())
def test_ascii_and_other_text_are_measured_alike(text: str) -> None:
    """What is shown of any text takes no less than no column and no more than two a character."""
    shown = printable(text)
    assert 0 <= columns(shown) <= 2 * len(shown)
    assert columns(shown + "é") == columns(shown) + 1


@pytest.mark.parametrize(
    ("text", "most", "expected"),
    [
        ("abcdef", 6, "abcdef"), ("abcdefg", 6, "abc..."), ("日本語", 6, "日本語"),
        ("日本語か", 7, "日本..."), ("日本語か", 6, "日..."),
        (f"ae{_ACUTE}cdefg", 6, f"ae{_ACUTE}c..."),
        (f"e{_ACUTE}" * 6, 6, f"e{_ACUTE}" * 6), (f"e{_ACUTE}" * 7, 6, f"e{_ACUTE}" * 3 + "..."),
    ],
)  # fmt: skip
def test_text_is_cut_between_characters_as_they_are_seen(
    text: str, most: int, expected: str
) -> None:
    """No half of a wide character is left, and no mark without its letter."""
    assert shortened(text, most) == expected


@given(st.text(), st.integers(0, 12))
def test_what_is_clipped_fits(text: str, most: int) -> None:
    """As much as fits is kept, from the beginning."""
    shown = printable(text)
    kept = clip(shown, most)
    assert shown.startswith(kept)
    assert columns(kept) <= most
    if kept != shown:
        assert columns(shown[: len(kept) + 1]) > most


def test_mark_without_a_letter_is_escaped() -> None:
    """It would change what stands in front of the text."""
    assert printable(_ACUTE + "e") == "\\u0301e"
    assert printable("\x1b" + _ACUTE) == "\\x1b" + _ACUTE
    assert printable(_FAMILY) == "\U0001f468\\u200d\U0001f469"


@given(st.text())
def test_what_is_shown_is_harmless(text: str) -> None:
    """No character that a terminal obeys is left."""
    assert printable(text).isprintable()
    assert printable("x" + text).isprintable()


def _column_of(line: str, word: str) -> int:
    return columns(line[: line.index(word)])


@pytest.mark.parametrize("width", [None, 40])
def test_columns_of_a_table_begin_below_each_other(width: int | None) -> None:
    """Whatever stands in front of them, and whether cells are cut or not."""
    rows = [
        ("日本語", "echo", "END"),
        (f"e{_ACUTE}", "echo 'こんにちは世界' | tr a b | tr c d", "END"),
        ("🚀x", None, "END"),
        ("plain", "\u2764\ufe0f é", "END"),
    ]
    lines = table_lines(rows, ("NAME", "COMMAND", "X"), width)
    assert len({_column_of(line, "END") for line in lines[1:]}) == 1
    assert len({_column_of(line, "echo") for line in lines[1:3]}) == 1
    if width is not None:
        assert max(map(columns, lines)) <= width
        assert "echo 'こんにちは世界' | ...  END" in lines[2]
        assert "\ufe0f" not in lines[4]
