"""Make text that jobs and users brought fit for a terminal: harmless, and measured in columns.

A terminal gives East Asian characters and emoji two columns, and combining marks none. Only text
that is not ASCII pays for finding that out.
"""


def printable(text: str) -> str:
    r"""Return text that does nothing to a terminal: what is not printable is shown as \x1b."""
    if text.isprintable() and (text.isascii() or char_columns(text[0])):
        return text
    shown = "".join(each if each.isprintable() else escaped(each) for each in text)
    if shown and not char_columns(shown[0]):  # it would change the character in front of the text
        shown = escaped(shown[0]) + shown[1:]
    return shown


def printable_line(line: str) -> str:
    """Return a line of text that does nothing to a terminal but go to its tab stops."""
    return "\t".join(map(printable, line.split("\t")))


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
