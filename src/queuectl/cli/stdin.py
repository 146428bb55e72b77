"""Read what was piped into ``enqueue``: a command, a job document, or a batch."""

import sys
from typing import BinaryIO

import click

from queuectl.document import MAX_DOCUMENT_BYTES
from queuectl.errors import BadDocument
from queuectl.job import MAX_COMMAND_BYTES
from queuectl.submit import begins_like_object

_UTF8_BOM = b"\xef\xbb\xbf"


def open_stdin(what: str) -> BinaryIO:
    """Return stdin; say first what is read where a person has to type it.

    Raises: click.UsageError where it is closed.
    """
    if sys.stdin is None:
        raise click.UsageError(f"stdin is closed, and {what} cannot be read from it.")
    if sys.stdin.isatty():
        click.echo(f"reading {what} from the terminal; Ctrl-D ends it", err=True)
    return sys.stdin.buffer


def read_command() -> str:
    """Return the command on stdin, without the newlines at its end, or the job document.

    Raises: BadDocument where it is longer than a command can be.
    """
    stdin = open_stdin("the command")
    # No more than can be refused: what is piped may have no end.
    data = stdin.read(MAX_COMMAND_BYTES + 2).removeprefix(_UTF8_BOM)
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
