"""Take a batch apart into the texts of its jobs.

A line is a job: a JSON object, or else a shell command. Objects that other programs, and ``--json``
of this one, have spread over lines are taken as well, alone or in an array.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from queuectl.document import MAX_DOCUMENT_BYTES
from queuectl.errors import BadDocument, shorten

_UTF8_BOM = b"\xef\xbb\xbf"
# A string of JSON ends on its line, and a bracket within it is none. A quote alone has no end.
_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[][{},"]|[^][{},"\s]+')
_decoder = json.JSONDecoder()


class Text(NamedTuple):
    """Hold the text of one job: where it begins, and whether it must be JSON."""

    line: int
    text: str
    is_json: bool


def job_texts(lines: Iterable[bytes]) -> Iterator[Text]:
    """Yield the text of each job of a batch; blank lines and comments are none.

    Raises: BadDocument that names the line.
    """
    decoded = _decoded(lines)
    for number, text in decoded:
        if not text or text.startswith("#"):
            continue
        if text == "{" or is_array(text):
            yield from _spread(number, text, decoded)
        else:
            yield Text(number, text, is_json=False)


def _decoded(lines: Iterable[bytes]) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(lines, 1):
        if len(line) > MAX_DOCUMENT_BYTES:
            raise _too_long(number)
        if number == 1:
            line = line.removeprefix(_UTF8_BOM)  # noqa: PLW2901  (some editors write it)
        # A byte that is no UTF-8 reaches the shell as it is.
        yield number, line.decode("utf-8", "surrogateescape").strip(" \t\r\n")


def is_array(text: str) -> bool:
    """Return whether a text is a JSON array, or the beginning of one, and no command."""
    # `[ -f x ] && y` is a command of the shell, and `[{"id": ...` is an array even where it is bad.
    text = text.strip()
    if not text.startswith("["):
        return False
    rest = text[1:].lstrip()
    if not rest or (rest.startswith("{") and rest[1:].lstrip()[:1] in {"", '"', "}"}):
        return True
    try:
        json.loads(text)
    except RecursionError:
        return True
    except ValueError:
        return False
    return True


def _spread(first: int, line: str, more: Iterator[tuple[int, str]]) -> Iterator[Text]:
    """Yield the objects of JSON that goes on in the next lines until its brackets are closed."""
    json_lines = _JsonLines(is_array=line.startswith("["))
    yield from json_lines.take(first, line)
    while not json_lines.ended:
        number, line = next(more, (0, ""))
        if not number:
            what = "array" if json_lines.is_array else "object"
            raise BadDocument(f"line {first}: the JSON {what} that begins here has no end")
        yield from json_lines.take(number, line)


class _JsonLines:
    """The objects of JSON that is spread over lines, as these come."""

    def __init__(self, *, is_array: bool) -> None:
        self.is_array = is_array
        self.ended = False
        self._is_open = not is_array  # whether objects may come
        self._depth = 0  # within an object
        self._begins = 0
        self._parts: list[str] = []
        self._size = 0

    def take(self, number: int, line: str) -> Iterator[Text]:
        """Yield the objects that end on a line."""
        if self._depth == 0 and line.startswith("{") and _is_whole(line):
            yield Text(number, line.removesuffix(","), is_json=True)  # as list --json writes them
            return
        at = 0
        for token in _TOKEN.finditer(line):
            mark = token[0]
            if self._depth == 0:
                if mark != "{" or not self._is_open:
                    self._pass(number, mark)
                    continue
                self._begins, at = number, token.start()
            if mark in "{[":
                self._depth += 1
            elif mark in "}]":
                self._depth -= 1
                if self._depth == 0:
                    self._parts.append(line[at : token.end()])
                    yield Text(self._begins, "".join(self._parts), is_json=True)
                    self._parts, self._size, at = [], 0, token.end()
                    if not self.is_array:
                        self.ended, self._is_open = True, False
            elif mark == '"':
                raise BadDocument(
                    f"line {number}: not a job document: bad JSON: a string has no end"
                )
        if self._depth:
            self._parts.append(line[at:] + "\n")
            self._size += len(line)
            if self._size > MAX_DOCUMENT_BYTES:
                raise _too_long(self._begins)

    def _pass(self, number: int, mark: str) -> None:
        """Pass what stands outside of objects: the brackets of the array and its commas."""
        if self.is_array and not self.ended:
            if mark == "[" and not self._is_open:
                self._is_open = True
                return
            if mark == "]":
                self.ended, self._is_open = True, False
                return
            if mark == "," and self._is_open:
                return
        if self.ended:
            raise BadDocument(f"line {number}: {shorten(mark)} follows the end of JSON on its line")
        raise BadDocument(f"line {number}: an array of jobs holds objects, and not {shorten(mark)}")


def _is_whole(line: str) -> bool:
    try:
        _, end = _decoder.raw_decode(line)
    except (ValueError, RecursionError):
        return False
    return line[end:] in {"", ","}


def _too_long(number: int) -> BadDocument:
    return BadDocument(f"line {number}: more than {MAX_DOCUMENT_BYTES} bytes")
