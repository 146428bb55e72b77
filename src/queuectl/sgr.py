"""The colours and styles that a command chooses with the sequence SGR of a terminal.

Only what is known is taken, and written again in its shortest form, so that no sequence of a
command's own making reaches a terminal. Source: ECMA-48 8.3.117, and ISO 8613-6 for colours.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

RESET = "\x1b[0m"

# What each number sets, and what it takes back. Concealed text (8) is not among them: a log shows
# what is in it.
_SETS = {
    1: "bold",
    2: "faint",
    3: "italic",
    4: "underline",
    5: "blink",
    6: "blink",
    7: "inverse",
    9: "struck",
    21: "underline",
    53: "overline",
    **dict.fromkeys([*range(30, 38), *range(90, 98)], "colour"),
    **dict.fromkeys([*range(40, 48), *range(100, 108)], "ground"),
}
_TAKES_BACK = {
    22: ("bold", "faint"),
    23: ("italic",),
    24: ("underline",),
    25: ("blink",),
    27: ("inverse",),
    29: ("struck",),
    55: ("overline",),
    39: ("colour",),
    49: ("ground",),
    59: ("line colour",),
}
_COLOURS = {38: "colour", 48: "ground", 58: "line colour"}
_PALETTE, _RGB = "5", "2"
_MOST = 255
_UNDERLINES = ("1", "2", "3", "4", "5")


class Style(NamedTuple):
    """The style in which a terminal writes; ``sequence`` turns it on after a reset.

    ``codes`` has what is on, each with the parameter that turns it on.
    """

    codes: tuple[tuple[str, str], ...] = ()
    sequence: str = ""


NO_STYLE = Style()


@lru_cache(1024)
def changed(style: Style, parameters: str) -> Style:
    """Return a style as the parameters of one sequence change it.

    Those that are not known, or out of bounds, change nothing.
    """
    codes = dict(style.codes)
    words = iter(parameters.split(";"))
    for word in words:
        number, *details = word.split(":")
        code = _number(number)
        if code is None:
            continue
        if details:
            _change_detailed(codes, code, details)
        elif code in _COLOURS:
            _set_colour(codes, code, _colour(next(words, ""), words))
        elif code == 0:
            codes.clear()
        elif code in _SETS:
            codes[_SETS[code]] = str(code)
        else:
            for name in _TAKES_BACK.get(code, ()):
                codes.pop(name, None)
    return Style(tuple(codes.items()), f"\x1b[{';'.join(codes.values())}m") if codes else NO_STYLE


def _change_detailed(codes: dict[str, str], code: int, details: list[str]) -> None:
    if code in _COLOURS:
        kind, *values = details
        # 2:R:G:B, or 2:SPACE:R:G:B and perhaps more.
        if kind == _RGB and len(values) > len("RGB"):
            values = values[1:]
        _set_colour(codes, code, _colour(kind, iter(values)))
    elif code == 4 and details[0] == "0":
        codes.pop("underline", None)
    elif code == 4 and details[0] in _UNDERLINES and len(details) == 1:
        codes["underline"] = f"4:{details[0]}"


def _set_colour(codes: dict[str, str], code: int, colour: str | None) -> None:
    if colour is not None:
        codes[_COLOURS[code]] = f"{code};{colour}"


def _colour(kind: str, words: Iterator[str]) -> str | None:
    """Return a colour of the palette, or of red, green and blue; None where it is none."""
    count = {_PALETTE: 1, _RGB: 3}.get(kind, 0)
    values = [_number(next(words, "")) for _ in range(count)]
    if not values or any(value is None or value > _MOST for value in values):
        return None
    return f"{kind};{';'.join(map(str, values))}"


def _number(text: str) -> int | None:
    """Return a parameter, 0 where it is left out; None where it is out of all bounds."""
    if not text:
        return 0
    text = text.lstrip("0") or "0"
    return int(text) if len(text) <= len("255") and text.isdecimal() else None
