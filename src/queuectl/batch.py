"""Splits a batch into the texts of its jobs.

Each line is a job: a JSON object, or else a shell command. JSON that other programs, or ``--json``
of this one, have spread over several lines is taken as well: objects, and arrays of objects.
"""

import json
import re
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from queuectl.document import MAX_DOCUMENT_BYTES
from queuectl.errors import BadDocument, shorten

# A string ends on its line, and brackets inside it do not count. A lone quote is an error.
_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[][{},"]|[^][{},"\s]+')
_decoder = json.JSONDecoder()


class Text(NamedTuple):
    """The text of one job, the line on which it begins, and whether it must be JSON."""

    line: int
    text: str
    is_json: bool


def job_texts(lines: Iterable[bytes]) -> Iterator[Text]:
    """Yield the text of each job of a batch. Raises: BadDocument, which names the line."""
    decoded = _decoded(lines)
    for number, text in decoded:
        if not text or text.startswith("#"):
            continue
        if text == "{" or is_array(text):
            yield from _parse_json(number, text, decoded)
        else:
            yield Text(number, text, is_json=False)


def _decoded(lines: Iterable[bytes]) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(lines, 1):
        if len(line) > MAX_DOCUMENT_BYTES:
            raise _too_long(number)
        if number == 1:
            line = line.removeprefix(BOM_UTF8)  # noqa: PLW2901  (some editors write one)
        # Bytes that are not UTF-8 reach the shell unchanged.
        yield number, line.decode("utf-8", "surrogateescape").strip(" \t\r\n")


def is_array(text: str) -> bool:
    """Return whether a text is a JSON array, or begins like one, and is not a command."""
    # `[ -f x ] && y` is a shell command; `[{"id": ...` is an array even if it is malformed.
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


def _parse_json(first: int, line: str, more: Iterator[tuple[int, str]]) -> Iterator[Text]:
    """Yield the objects of JSON that continues on the next lines until its brackets are closed."""
    json_lines = _JsonLines(is_array=line.startswith("["))
    yield from json_lines.take(first, line)
    while not json_lines.ended:
        number, line = next(more, (0, ""))
        if not number:
            what = "array" if json_lines.is_array else "object"
            raise BadDocument(f"line {first}: the JSON {what} that begins here has no end")
        yield from json_lines.take(number, line)


class _JsonLines:
    """A parser of JSON that is spread over lines, fed line by line."""

    def __init__(self, *, is_array: bool) -> None:
        self.is_array = is_array
        self.ended = False
        self._is_open = not is_array  # an object may begin
        self._depth = 0  # of brackets inside an object
        self._first_line = 0
        self._parts: list[str] = []
        self._size = 0

    def take(self, number: int, line: str) -> Iterator[Text]:
        """Yield the objects that end on a line."""
        if self._depth == 0 and line.startswith("{") and _is_complete_object(line):
            yield Text(number, line.removesuffix(","), is_json=True)  # as list --json writes them
            return
        at = 0
        for token in _TOKEN.finditer(line):
            mark = token[0]
            if self._depth == 0:
                if mark != "{" or not self._is_open:
                    self._skip(number, mark)
                    continue
                self._first_line, at = number, token.start()
            if mark in "{[":
                self._depth += 1
            elif mark in "}]":
                self._depth -= 1
                if self._depth == 0:
                    self._parts.append(line[at : token.end()])
                    yield Text(self._first_line, "".join(self._parts), is_json=True)
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
                raise _too_long(self._first_line)

    def _skip(self, number: int, mark: str) -> None:
        """Skip the brackets and commas of the array around the objects. Raises: BadDocument."""
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


def _is_complete_object(line: str) -> bool:
    try:
        _, end = _decoder.raw_decode(line)
    except (ValueError, RecursionError):
        return False
    return line[end:] in {"", ","}


def _too_long(number: int) -> BadDocument:
    return BadDocument(f"line {number}: more than {MAX_DOCUMENT_BYTES} bytes")
