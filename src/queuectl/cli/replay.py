"""A log on the user's terminal, as it was meant for the terminal of its command."""

import codecs
import os
import re
from collections.abc import Callable
from typing import TextIO

from queuectl.line import Line, rendered
from queuectl.text import char_columns, encoded, output_encoding

_PLAIN = re.compile(r"[\t -~]*\r*")
_END_OF_LINE = "\x1b[K"
_DEFAULT_WIDTH = 80


class Replay:
    """The bytes of a log, turned into lines for a terminal.

    A line that is not complete is shown by ``draw``, and drawn over if the command has gone back
    in it. Nothing that is written leaves a style on.
    """

    def __init__(self, write: Callable[[bytes], object], width: Callable[[], int]) -> None:
        self._write = write
        self._width = width
        self._is_dumb = os.environ.get("TERM", "dumb") == "dumb"
        has_styles = not (self._is_dumb or os.environ.get("NO_COLOR"))
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._line = Line(has_styles=has_styles, when_full=self._continue_full_line)
        self._out: list[str] = []
        self._drawn: tuple[list[str], list[str]] = ([], [])  # cells and styles on the terminal
        self._is_redrawn = False  # and no longer than the terminal is wide
        self._is_long = False  # its beginning is on the terminal, and is not drawn again

    def feed(self, data: bytes) -> None:
        """Take the next bytes, and write the lines that they complete."""
        *lines, last = self._decoder.decode(data).split("\n")
        for each in lines:
            if self._is_shown_as_it_is(each):
                self._out.append(each.rstrip("\r"))
            else:
                self._line.write(each)
                self._show(self._line.cells, self._line.styles)
            self._out.append("\n")
            self._begin_line()
        self._line.write(last, more=True)
        self._flush()

    def _is_shown_as_it_is(self, text: str) -> bool:
        """Return whether a line needs no cells: a log is mostly plain text."""
        if self._drawn[0] or self._is_long or not self._line.is_fresh():
            return False
        if _PLAIN.fullmatch(text):
            return True
        return text.isprintable() and output_encoding() == "utf-8" and char_columns(text[0]) > 0

    def draw(self) -> None:
        """Show the line that is not complete yet."""
        if self._is_long or self._drawn == (self._line.cells, self._line.styles):
            return
        cells, styles = self._line.cells, self._line.styles
        if self._is_redrawn or not self._extends_drawn():
            # It must not wrap, since nothing leads back to its beginning from the next row.
            end = self._width() - 1
            while end > 0 and end < len(cells) and not cells[end]:
                end -= 1
            cells, styles = cells[:end], styles[:end]
        self._show(cells, styles)
        self._flush()

    def finish(self) -> None:
        """Show all that is left at the end of the log."""
        self._line.write(self._decoder.decode(b"", final=True))
        self._show(self._line.cells, self._line.styles)
        self._flush()

    def begin(self) -> None:
        """Start another log, on a line of its own."""
        if self._line.cells or self._is_long:
            self._out.append("\n")
        self._begin_line()
        self._line.end_style()
        self._decoder.reset()

    def _continue_full_line(self) -> None:
        self._show(self._line.cells, self._line.styles)
        self._begin_line()
        self._is_long = True

    def _begin_line(self) -> None:
        self._line.clear()
        self._drawn = ([], [])
        self._is_redrawn = self._is_long = False

    def _extends_drawn(self) -> bool:
        """Return whether the terminal shows the beginning of the line."""
        cells, styles = self._drawn
        count = len(cells)
        return self._line.cells[:count] == cells and self._line.styles[:count] == styles

    def _show(self, cells: list[str], styles: list[str]) -> None:
        """Show a line instead of what was drawn of it."""
        if not self._is_redrawn and self._extends_drawn():
            count = len(self._drawn[0])
            self._out.append(rendered(cells[count:], styles[count:]))
        elif self._drawn != (cells, styles):
            # Rows that have wrapped stay, and the line starts again below them.
            before = len(self._drawn[0])
            has_wrapped = not self._is_redrawn and before > self._width()
            self._is_redrawn = True
            # Erased first: a tab would leave the old text.
            erase = " " * before + "\r" if self._is_dumb else _END_OF_LINE
            self._out.append("\n" if has_wrapped else "\r" + erase)
            self._out.append(rendered(cells, styles))
        self._drawn = (cells.copy(), styles.copy())

    def _flush(self) -> None:
        if self._out:
            self._write(encoded("".join(self._out)))
            self._out.clear()


def replay_on(terminal: TextIO) -> Replay:
    """Return a replay that writes to a terminal."""

    def write(data: bytes) -> None:
        terminal.buffer.write(data)
        terminal.flush()

    def width() -> int:
        try:
            return os.get_terminal_size(terminal.fileno()).columns or _DEFAULT_WIDTH
        except OSError:
            return _DEFAULT_WIDTH

    return Replay(write, width)
