"""Colours and styles that a command sets with the terminal sequence SGR.

Only known parameters are taken, and written again in their shortest form, so that no sequence made
by a command reaches a terminal. Source: ECMA-48 8.3.117, and ISO 8613-6 for colours.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

RESET = "\x1b[0m"

# Each attribute with the numbers that set it and the one that resets it. Concealed text (8) is left
# out: a log shows what is in it.
_ATTRIBUTES = {
    "bold": ((1,), 22),
    "faint": ((2,), 22),
    "italic": ((3,), 23),
    "underline": ((4, 21), 24),
    "blink": ((5, 6), 25),
    "inverse": ((7,), 27),
    "struck": ((9,), 29),
    "overline": ((53,), 55),
    "foreground": ((*range(30, 38), *range(90, 98)), 39),
    "background": ((*range(40, 48), *range(100, 108)), 49),
    "line colour": ((), 59),
}
_COLOURS = {38: "foreground", 48: "background", 58: "line colour"}
_UNDERLINE = 4
_UNDERLINE_STYLES = ("1", "2", "3", "4", "5")
_PALETTE, _RGB = "5", "2"


class Style(NamedTuple):
    """The attributes that are on, each with its parameter, and what sets them after a reset."""

    codes: tuple[tuple[str, str], ...] = ()
    sequence: str = ""


NO_STYLE = Style()


@lru_cache(1024)
def changed(style: Style, parameters: str) -> Style:
    """Return a style as one sequence changes it; unknown parameters change nothing."""
    codes = dict(style.codes)
    words = iter(parameters.split(";"))
    for word in words:
        first, *details = word.split(":")
        number = _number(first)
        if number in _COLOURS:
            if details[:1] == [_RGB] and len(details) > 4:
                del details[1]  # 2:SPACE:R:G:B names a colour space
            if colour := _colour(iter(details) if details else words):
                codes[_COLOURS[number]] = f"{number};{colour}"
        elif details:
            if number == _UNDERLINE and details == ["0"]:
                codes.pop("underline", None)
            elif number == _UNDERLINE and len(details) == 1 and details[0] in _UNDERLINE_STYLES:
                codes["underline"] = f"{_UNDERLINE}:{details[0]}"
        elif number == 0:
            codes.clear()
        else:
            for name, (setting, resetting) in _ATTRIBUTES.items():
                if number in setting:
                    codes[name] = str(number)
                elif number == resetting:
                    codes.pop(name, None)
    return Style(tuple(codes.items()), f"\x1b[{';'.join(codes.values())}m") if codes else NO_STYLE


def _colour(words: Iterator[str]) -> str | None:
    """Return a colour of the palette, or of red, green and blue; None if it is out of bounds."""
    kind = next(words, "")
    values = [_number(next(words, "")) for _ in range({_PALETTE: 1, _RGB: 3}.get(kind, 0))]
    return f"{kind};{';'.join(map(str, values))}" if values and None not in values else None


def _number(text: str) -> int | None:
    """Return a parameter, 0 if it is left out; None if it is more than 255."""
    text = text.lstrip("0") or "0"
    return int(text) if len(text) <= 3 and text.isdecimal() and int(text) <= 255 else None
