"""Make text that jobs and users brought fit for a terminal: harmless, and measured in columns.

A terminal gives East Asian characters and emoji two columns, and combining marks none. Only text
that is not ASCII pays for finding that out.
"""

import sys
from contextlib import suppress
from functools import lru_cache


def printable(text: str) -> str:
    r"""Return text that does nothing to a terminal: what is not printable is shown as \x1b.

    Nor is what the terminal's encoding does not have.
    """
    if text.isascii():
        return text if text.isprintable() else "".join(map(_shown, text))
    encoding = output_encoding()
    if encoding != "utf-8":
        shown = _printable_in(encoding, text)
    elif text.isprintable():
        shown = text
    else:
        shown = "".join(map(_shown, text))
    if not char_columns(shown[0]):  # it would change the character in front of the text
        shown = escaped(shown[0]) + shown[1:]
    return shown


def output_encoding() -> str:
    """Return the encoding of what is written for the user."""
    encoding: str = getattr(sys.stdout, "encoding", None) or "utf-8"
    return "utf-8" if encoding.lower() == "utf8" else encoding.lower()


def encoded(text: str) -> bytes:
    """Return text as the user's terminal, or file, is to be given it."""
    return text.encode(output_encoding(), "backslashreplace")


def _printable_in(encoding: str, text: str) -> str:
    """Return text as it is shown in an encoding that is not UTF-8."""
    return "".join(
        each if each.isprintable() and is_in(encoding, each) else escaped(each)
        for each in as_read(text, encoding)
    )


def as_read(text: str, encoding: str) -> str:
    """Return text as who reads an encoding that is not UTF-8 means it.

    Text that is no UTF-8 was written in another encoding, and most likely in this one.
    """
    if any("\udc80" <= each <= "\udcff" for each in text):
        with suppress(UnicodeEncodeError):  # a lone surrogate that stands for no byte
            return text.encode("utf-8", "surrogateescape").decode(encoding, "surrogateescape")
    return text


def is_in(encoding: str, character: str) -> bool:
    """Return whether an encoding has a character."""
    if encoding == "utf-8":
        return not "\ud800" <= character <= "\udfff"
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _shown(character: str) -> str:
    return character if character.isprintable() else escaped(character)


def one_line(text: str) -> str:
    """Return a message on one line, with nothing in it that a terminal would obey."""
    return printable(" ".join(text.split()))


def escaped(character: str) -> str:
    r"""Return a character as \x1b or the like shows it."""
    if "\udc80" <= character <= "\udcff":  # a byte that was no UTF-8, as Python holds it
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def columns(text: str) -> int:
    """Return how many columns of a terminal a printable text takes."""
    return len(text) if text.isascii() else sum(map(char_columns, text))


@lru_cache(4096)
def char_columns(character: str) -> int:
    """Return how many columns a printable character takes: 0, 1 or 2."""
    if character < "\u0300":
        return 1
    from unicodedata import category, east_asian_width

    # The second and third part of a Korean syllable are drawn into its first.
    if category(character) in ("Mn", "Me") or character in _JOINED:
        return 0
    return 2 if east_asian_width(character) in ("W", "F") else 1


_JOINED = frozenset(map(chr, [0x200C, 0x200D, *range(0x1160, 0x1200), *range(0xD7B0, 0xD800)]))


def clip(text: str, most: int) -> str:
    """Return as much of the beginning of a text as fits into ``most`` columns."""
    if len(text) <= most and columns(text) <= most:
        return text
    if text.isascii():
        return text[:most]
    taken = 0
    for index, each in enumerate(text):
        taken += char_columns(each)
        if taken > most:
            return text[:index]
    return text


def shortened(text: str, most: int) -> str:
    """Return a text that fits into ``most`` columns, with ``...`` for what is cut off."""
    return text if columns(text) <= most else clip(text, most - 3) + "..."
