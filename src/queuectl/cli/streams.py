"""Standard streams that are not plain ones: piped input, a progress bar, a closed stdout."""

import os
import sys
from codecs import BOM_UTF8
from io import TextIOBase
from typing import BinaryIO, TextIO

import click

from queuectl.document import MAX_DOCUMENT_BYTES
from queuectl.errors import BadDocument, StoreError
from queuectl.job import MAX_COMMAND_BYTES
from queuectl.nonblocking import NonBlockingWriter
from queuectl.submit import begins_like_object

_CLOSED = "stdout is closed: open it, or send it to /dev/null"


def open_stdin(what: str) -> BinaryIO:
    """Return stdin, on a terminal saying what is read. Raises: click.UsageError, StoreError."""
    if sys.stdin is None:
        raise click.UsageError(f"stdin is closed, and {what} cannot be read from it.")
    try:
        os.read(0, 0)
    except OSError as error:  # open for writing only, or a directory
        raise StoreError(f"{what} cannot be read from stdin: {error.strerror}") from error
    if sys.stdin.isatty():
        click.echo(f"reading {what} from the terminal; Ctrl-D ends it", err=True)
    return sys.stdin.buffer


def read_command() -> str:
    """Return the command or the document on stdin. Raises: click.UsageError, BadDocument."""
    stdin = open_stdin("the command")
    # No more than it takes to refuse it: what is piped may have no end.
    data = stdin.read(MAX_COMMAND_BYTES + 2).removeprefix(BOM_UTF8)
    if begins_like_object(data.decode("utf-8", "surrogateescape")):
        data += stdin.read(MAX_DOCUMENT_BYTES + 1)
        if len(data) > MAX_DOCUMENT_BYTES:
            raise BadDocument(f"the job document on stdin has more than {MAX_DOCUMENT_BYTES} bytes")
    elif len(data.rstrip(b"\n")) > MAX_COMMAND_BYTES:
        raise BadDocument(
            f"the command on stdin has more than {MAX_COMMAND_BYTES} bytes, the most that the"
            " kernel takes: put it into a file, and enqueue a command that runs the file"
        )
    text = data.decode("utf-8", "surrogateescape").rstrip("\n")
    if not text.strip():
        raise click.UsageError("the command on stdin is empty.")
    return text


class ProgressStream(TextIOBase):
    """A terminal for a progress bar; output that it does not accept at once is dropped.

    The bar is drawn while pending.lock is held, which workers need, too: a terminal that Ctrl-S has
    stopped must not stop them.
    """

    def __init__(self, terminal: TextIO) -> None:
        self._encoding = terminal.encoding
        self._writer = NonBlockingWriter(terminal.fileno())

    def isatty(self) -> bool:
        """Return True."""
        return True

    def write(self, text: str) -> int:
        """Write or drop a text."""
        self._writer.write(text.encode(self._encoding, "backslashreplace"), lambda _: b"")
        return len(text)

    def close(self) -> None:
        """Free the descriptor that was opened beside the terminal's."""
        self._writer.close()
        super().close()


class ClosedStdout(TextIOBase):
    """The place of a stdout that is closed; it refuses all output, so that none is lost."""

    encoding = "utf-8"

    def write(self, text: str) -> int:  # noqa: ARG002  (the signature of a stream)
        """Refuse a text. Raises: StoreError."""
        raise StoreError(_CLOSED)

    @property
    def buffer(self) -> BinaryIO:
        """Refuse bytes. Raises: StoreError."""
        raise StoreError(_CLOSED)
