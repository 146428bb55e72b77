"""Text from jobs and users, made harmless for a terminal and measured in its columns.

A terminal gives East Asian characters and emoji two columns, and combining marks none. Only text
that is not ASCII pays for finding that out.
"""

import sys
from contextlib import suppress
from functools import lru_cache

# The second and third part of a Korean syllable are drawn into its first.
_JOINED = frozenset(map(chr, [0x200C, 0x200D, *range(0x1160, 0x1200), *range(0xD7B0, 0xD800)]))


def printable(text: str) -> str:
    r"""Return text with all that is not printable, or not in the output's encoding, as \x1b."""
    if text.isascii() and text.isprintable():
        return text
    encoding = output_encoding()
    if encoding != "utf-8" or not text.isprintable():
        text = "".join(
            each if each.isprintable() and is_in(encoding, each) else escaped(each)
            for each in as_read(text, encoding)
        )
    # A combining mark would change the character in front of the text.
    return text if char_columns(text[0]) else escaped(text[0]) + text[1:]


def one_line(text: str) -> str:
    """Return a message as one printable line."""
    return printable(" ".join(text.split()))


def escaped(character: str) -> str:
    r"""Return a character as an escape sequence such as \x1b."""
    if "\udc80" <= character <= "\udcff":  # a byte that is not UTF-8, as Python holds it
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def output_encoding() -> str:
    """Return the encoding of stdout."""
    encoding: str = getattr(sys.stdout, "encoding", None) or "utf-8"
    return "utf-8" if encoding.lower() == "utf8" else encoding.lower()


def encoded(text: str) -> bytes:
    """Return text in the encoding of stdout."""
    return text.encode(output_encoding(), "backslashreplace")


def as_read(text: str, encoding: str) -> str:
    """Return text with its bytes that are not UTF-8 decoded as ``encoding``, which is likely."""
    if encoding != "utf-8" and any("\udc80" <= each <= "\udcff" for each in text):
        with suppress(UnicodeEncodeError):  # a lone surrogate that stands for no byte
            return text.encode("utf-8", "surrogateescape").decode(encoding, "surrogateescape")
    return text


def is_in(encoding: str, character: str) -> bool:
    """Return whether an encoding has a character."""
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def columns(text: str) -> int:
    """Return how many columns of a terminal a printable text takes."""
    return len(text) if text.isascii() else sum(map(char_columns, text))


@lru_cache(4096)
def char_columns(character: str) -> int:
    """Return how many columns a printable character takes: 0, 1 or 2."""
    if character < "\u0300":
        return 1
    from unicodedata import category, east_asian_width

    if category(character) in ("Mn", "Me") or character in _JOINED:
        return 0
    return 2 if east_asian_width(character) in ("W", "F") else 1


def clip(text: str, width: int) -> str:
    """Return as much of the beginning of a text as fits into ``width`` columns."""
    if text.isascii():
        return text[:width]
    taken = 0
    for index, each in enumerate(text):
        taken += char_columns(each)
        if taken > width:
            return text[:index]
    return text


def shortened(text: str, width: int) -> str:
    """Return a text cut to ``width`` columns, ending in ``...`` if it was cut."""
    return text if columns(text) <= width else clip(text, width - 3) + "..."
