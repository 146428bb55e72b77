"""One line of a terminal, as what a command writes on it leaves it.

Carriage returns, backspaces, tabs and the sequence that erases in a line do what they would have
done on a terminal that is wide enough, and colours and styles are kept. Whatever else a terminal
would obey is shown as text.
"""

import re
from collections.abc import Callable, Sequence
from itertools import groupby

from queuectl.sgr import NO_STYLE, RESET, changed
from queuectl.text import as_read, char_columns, escaped, is_in, output_encoding

MOST_COLUMNS = 4096
_TAB = 8
_MOST_MARKS = 16
# Longer than all that a command could mean; the beginning of one may be the end of what is read.
_PARAMETERS = "[0-9:;]{0,128}"
_TOKEN = re.compile(
    r"(?P<plain>[ -~]+)"
    rf"|\x1b\[(?P<style>{_PARAMETERS})m"
    r"|\x1b\[(?P<erase>[012]?)K"
    r"|(?P<nothing>\x1b\(B|\x0f)"  # what terminfo has beside SGR to end all styles
    r"|(?P<move>[\r\b\t])"
    r"|(?P<text>[^\x00-\x1f\x7f]+)"
    r"|(?P<control>.)",
    re.DOTALL,
)
_UNFINISHED = re.compile(rf"\x1b(\[{_PARAMETERS}|\()?\Z")
_UNFINISHED_BYTES = re.compile(r"[^\x00-\x7f]+\Z")
_MOST_UNFINISHED = 256
# Spaces of several widths, and what joins letters and emoji.
_SPACES = frozenset("\xa0\u1680\u202f\u205f\u3000\u200c\u200d") | set(
    map(chr, range(0x2000, 0x200B))
)


class Line:
    """One line: its cells, the style of each, and the column in which the next character goes.

    A cell that a wide character or a tab covers in part is empty. With ``when_full`` the line is
    bounded: that is called where the next character has no column, and must clear the line.
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
        """Return whether a text would stand on the line just as it is."""
        return not (self.cells or self._column or self._rest or self._style.sequence)

    def clear(self) -> None:
        """Begin at the first column of an empty line, in the style that was chosen."""
        self.cells, self.styles, self._column = [], [], 0

    def end_style(self) -> None:
        """Write what comes in no style."""
        self._style = NO_STYLE

    def write(self, text: str, *, goes_on: bool = False) -> None:
        """Write on the line; with ``goes_on`` a sequence that is cut off waits for its end."""
        text = self._rest + text
        self._rest = _unfinished(text[-_MOST_UNFINISHED:]) if goes_on else ""
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
        if encoding != "utf-8":
            text = as_read(text, encoding)
        elif text.isprintable() and set(map(char_columns, text)) == {1}:
            self._put(text)
            return
        for each in text:
            if not (each.isprintable() or each in _SPACES) or not is_in(encoding, each):
                self._put(escaped(each))
            elif (count := char_columns(each)) == 0:
                self._mark(each)
            else:
                self._room(count, count)
                self._put_cells([each, *[""] * (count - 1)])

    def _room(self, least: int, wanted: int) -> int:
        """Return how many of the wanted columns there are, after making room for the least."""
        if self._when_full is None:
            return wanted
        if self._column > MOST_COLUMNS - least:
            self._when_full()
        return min(wanted, MOST_COLUMNS - self._column)

    def _put_cells(self, cells: Sequence[str]) -> None:
        begin, end = self._column, self._column + len(cells)
        self._fill(begin)
        self._split(begin)
        self._split(end)
        self.cells[begin:end] = cells
        self.styles[begin:end] = [self._style.sequence] * len(cells)
        self._column = end

    def _fill(self, end: int) -> None:
        """Fill the line with spaces up to a column."""
        if (missing := end - len(self.cells)) > 0:
            self.cells += " " * missing
            self.styles += [""] * missing

    def _split(self, column: int) -> None:
        """Make spaces of a wide character or a tab that a column would cut in two."""
        if not (0 < column < len(self.cells)) or self.cells[column]:
            return
        begin, end = column, column
        while not self.cells[begin]:
            begin -= 1
        while end < len(self.cells) and not self.cells[end]:
            end += 1
        self.cells[begin:end] = " " * (end - begin)

    def _mark(self, mark: str) -> None:
        """Add a combining mark to the character in front of the cursor."""
        at = min(self._column, len(self.cells)) - 1
        while at >= 0 and not self.cells[at]:
            at -= 1
        takes_it = at >= 0 and self.cells[at] != "\t" and len(self.cells[at]) <= _MOST_MARKS
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
    """Return the end of a text that only what comes next can tell the meaning of."""
    match = _UNFINISHED.search(text)
    if match is None and output_encoding() != "utf-8":
        match = _UNFINISHED_BYTES.search(text)
    return match[0] if match else ""


def rendered(cells: Sequence[str], styles: Sequence[str]) -> str:
    """Return what shows cells in their styles, and leaves no style behind."""
    if not any(styles):
        return "".join(cells)
    parts = []
    begin = 0
    for style, group in groupby(styles):
        end = begin + sum(1 for _ in group)
        text = "".join(cells[begin:end])
        parts.append(f"{style}{text}{RESET}" if style else text)
        begin = end
    return "".join(parts)


def finally_shown(text: str) -> str:
    """Return what a line shows in the end, without styles; it must hold no newline."""
    line = Line()
    line.write(text)
    return "".join(line.cells)
