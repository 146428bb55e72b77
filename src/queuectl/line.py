"""One line of a terminal, as the text that a command writes to it leaves it.

Carriage returns, backspaces, tabs and the sequence that erases in a line do what they would have
done on a terminal that is wide enough, and colours and styles are kept. All else that a terminal
would obey is shown as text.
"""

import re
from collections.abc import Callable, Sequence
from itertools import groupby
from operator import itemgetter

from queuectl.sgr import NO_STYLE, RESET, changed
from queuectl.text import as_read, char_columns, escaped, is_in, output_encoding

MAX_COLUMNS = 4096
_TAB = 8
_MAX_MARKS = 16
# Longer than any meaningful one; a sequence may be cut off at the end of what was read.
_PARAMETERS = "[0-9:;]{0,128}"
_TOKEN = re.compile(
    r"(?P<plain>[ -~]+)"
    rf"|\x1b\[(?P<style>{_PARAMETERS})m"
    r"|\x1b\[(?P<erase>[012]?)K"
    r"|(?P<ignored>\x1b\(B|\x0f)"  # terminfo ends all styles with these beside SGR
    r"|(?P<move>[\r\b\t])"
    r"|(?P<text>[^\x00-\x1f\x7f]+)"
    r"|(?P<control>.)",
    re.DOTALL,
)
_UNFINISHED = re.compile(rf"\x1b(\[{_PARAMETERS}|\()?\Z")
_UNFINISHED_BYTES = re.compile(r"[^\x00-\x7f]+\Z")
_MAX_UNFINISHED = 256
# Spaces of several widths, and joiners of letters and emoji.
_SPACES = {*"\xa0\u1680\u202f\u205f\u3000\u200c\u200d", *map(chr, range(0x2000, 0x200B))}


class Line:
    """The cells of a line, the style of each, and the column of the next character.

    A wide character or a tab leaves the other cells that it covers empty. With ``when_full`` the
    line is bounded: it is called when the next character has no column, and must clear the line.
    """

    def __init__(
        self, *, has_styles: bool = False, when_full: Callable[[], None] | None = None
    ) -> None:
        self.cells: list[str] = []
        self.styles: list[str] = []
        self._column = 0
        self._style = NO_STYLE
        self._has_styles = has_styles
        self._when_full = when_full
        self._rest = ""

    def is_fresh(self) -> bool:
        """Return whether plain text written now would be shown unchanged."""
        return not (self.cells or self._column or self._rest or self._style.sequence)

    def clear(self) -> None:
        """Start an empty line in the current style."""
        self.cells, self.styles, self._column = [], [], 0

    def end_style(self) -> None:
        """Reset the style of the text to come."""
        self._style = NO_STYLE

    def write(self, text: str, *, more: bool = False) -> None:
        """Write on the line; with ``more`` text to come, keep a sequence that is cut off."""
        text = self._rest + text
        self._rest = _unfinished(text[-_MAX_UNFINISHED:]) if more else ""
        for match in _TOKEN.finditer(text, 0, len(text) - len(self._rest)):
            kind, token = match.lastgroup or "", match[0]
            if kind == "plain":
                self._put(token)
            elif kind == "style":
                if self._has_styles:
                    self._style = changed(self._style, match["style"])
            elif kind == "erase":
                self._erase(match["erase"])
            elif kind == "move":
                self._move(token)
            elif kind == "text":
                self._put_text(token)
            elif kind == "control":
                self._put(escaped(token))

    def _put(self, text: str) -> None:
        """Write characters of one column each."""
        while text:
            room = self._room(1, len(text))
            self._put_cells(text[:room])
            text = text[room:]

    def _put_text(self, text: str) -> None:
        encoding = output_encoding()
        if encoding == "utf-8" and text.isprintable() and set(map(char_columns, text)) == {1}:
            self._put(text)
            return
        for each in as_read(text, encoding):
            if not (each.isprintable() or each in _SPACES) or not is_in(encoding, each):
                self._put(escaped(each))
            elif (count := char_columns(each)) == 0:
                self._mark(each)
            else:
                self._room(count, count)
                self._put_cells([each, *[""] * (count - 1)])

    def _room(self, needed: int, wanted: int) -> int:
        """Return how many of the wanted columns are free, after making room for the needed."""
        if self._when_full is None:
            return wanted
        if self._column > MAX_COLUMNS - needed:
            self._when_full()
        return min(wanted, MAX_COLUMNS - self._column)

    def _put_cells(self, cells: Sequence[str]) -> None:
        begin, end = self._column, self._column + len(cells)
        if (missing := begin - len(self.cells)) > 0:
            self.cells += " " * missing
            self.styles += [""] * missing
        self._split(begin)
        self._split(end)
        self.cells[begin:end] = cells
        self.styles[begin:end] = [self._style.sequence] * len(cells)
        self._column = end

    def _split(self, column: int) -> None:
        """Replace a wide character or a tab that a column would cut in two by spaces."""
        if not (0 < column < len(self.cells)) or self.cells[column]:
            return
        begin, end = column, column
        while not self.cells[begin]:
            begin -= 1
        while end < len(self.cells) and not self.cells[end]:
            end += 1
        self.cells[begin:end] = " " * (end - begin)

    def _mark(self, mark: str) -> None:
        """Add a combining mark to the character before the cursor."""
        at = min(self._column, len(self.cells)) - 1
        while at >= 0 and not self.cells[at]:
            at -= 1
        takes_it = at >= 0 and self.cells[at] != "\t" and len(self.cells[at]) <= _MAX_MARKS
        if takes_it and self._column <= len(self.cells):
            self.cells[at] += mark
        else:
            self._put(escaped(mark))

    def _move(self, token: str) -> None:
        if token == "\r":
            self._column = 0
        elif token == "\b":
            self._column = max(self._column - 1, 0)
        else:
            self._room(_TAB, _TAB)
            to = self._column - self._column % _TAB + _TAB
            if self._column >= len(self.cells):
                self._put_cells(["\t", *[""] * (to - self._column - 1)])
            self._column = to

    def _erase(self, what: str) -> None:
        if what == "2":
            self.cells, self.styles = [], []
        elif what == "1":
            end = min(self._column + 1, len(self.cells))
            self._split(end)
            self.cells[:end], self.styles[:end] = " " * end, [""] * end
        else:
            self._split(self._column)
            del self.cells[self._column :], self.styles[self._column :]


def _unfinished(text: str) -> str:
    """Return the end of a text whose meaning depends on the text to come."""
    match = _UNFINISHED.search(text)
    if match is None and output_encoding() != "utf-8":
        match = _UNFINISHED_BYTES.search(text)
    return match[0] if match else ""


def rendered(cells: Sequence[str], styles: Sequence[str]) -> str:
    """Return text that shows cells in their styles, and leaves no style on."""
    parts = []
    for style, group in groupby(zip(styles, cells, strict=True), itemgetter(0)):
        text = "".join(cell for _, cell in group)
        parts.append(f"{style}{text}{RESET}" if style else text)
    return "".join(parts)


def finally_shown(text: str) -> str:
    """Return what a line shows in the end, without styles; it must hold no newline."""
    line = Line()
    line.write(text)
    return "".join(line.cells)
