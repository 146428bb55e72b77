"""How data is printed: JSON, tables and lengths of time."""

import json
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

import click

from queuectl.text import columns, printable, shortened

_MAY_BE_CUT = ("COMMAND", "HOST", "LAST LINE")
_LEAST_WIDTH = 10


def echo_json(value: Any) -> None:
    """Print one JSON document; ASCII alone, so that no terminal or locale can misread it."""
    click.echo(json.dumps(value, indent=2, allow_nan=False))


def echo_json_array(values: Iterable[Any]) -> None:
    """Print a JSON array, one element a line, holding one element at a time."""
    separator = "["
    for value in values:
        click.echo(separator + "\n  " + json.dumps(value, allow_nan=False), nl=False)
        separator = ","
    click.echo("[]" if separator == "[" else "\n]")


def echo_table(
    rows: Sequence[Sequence[object]], headers: Sequence[str], *, empty: str = ""
) -> None:
    """Print a table in which whatever jobs and users wrote is printable; None is an empty cell.

    On a terminal, commands and the like are cut so that a row fits. Without rows, nothing is
    printed but ``empty``, on stderr.
    """
    if empty and not rows:
        click.echo(empty, err=True)
        return
    width = None
    if sys.stdout.isatty():
        from shutil import get_terminal_size

        width = get_terminal_size().columns
    click.echo("\n".join(table_lines(rows, headers, width)))


def table_lines(
    rows: Iterable[Sequence[object]], headers: Sequence[str], width: int | None
) -> list[str]:
    """Return the lines of a table, cut to a width in columns unless that is None."""
    from tabulate import tabulate

    cells = [["" if cell is None else printable(str(cell)) for cell in row] for row in rows]
    if width is not None:
        # Terminals do not agree on how wide a character is that this turns into an emoji.
        cells = [[cell.replace("\ufe0f", "") for cell in row] for row in cells]
        _fit(cells, headers, width)
    # tabulate counts characters: it lays out stand-ins with as many as a cell has columns. They are
    # made of characters for private use, which are not printable and so in no cell.
    wide = iter([cell for row in cells for cell in row if not cell.isascii()])
    shapes = [
        [cell if cell.isascii() else "\ue000".ljust(columns(cell), "\ue001") for cell in row]
        for row in cells
    ]
    # disable_numparse: an id such as 1e5 is no number. The headers are a row, since tabulate makes
    # the columns of headers wider; its lines are as long as the longest command.
    text = tabulate([headers, *shapes], tablefmt="plain", disable_numparse=True)
    text = re.sub("\ue000\ue001*", lambda _: next(wide), text)
    return [line.rstrip() for line in text.split("\n")]


def _fit(rows: list[list[str]], headers: Sequence[str], width: int) -> None:
    """Cut the columns that may be cut so that a row fits, the widest of them most."""
    widths = [max(map(columns, column)) for column in zip(headers, *rows, strict=True)]
    cut = sorted(
        (index for index, header in enumerate(headers) if header in _MAY_BE_CUT),
        key=lambda index: widths[index],
    )
    room = width - sum(widths) - 2 * (len(headers) - 1) + sum(widths[index] for index in cut)
    for position, index in enumerate(cut):
        most = max(room // (len(cut) - position), _LEAST_WIDTH)
        for row in rows:
            row[index] = shortened(row[index], most)
        room -= min(widths[index], most)


def counted(count: int, noun: str) -> str:
    """Return a number of things, such as ``1 job`` and ``2 jobs``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def first_few(names: Sequence[str], most: int = 10) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def format_ago(past: timedelta) -> str:
    """Return a time in the past for a person, such as ``1h5m ago``."""
    return f"{format_coarse(past)} ago"


def format_in(ahead: timedelta) -> str:
    """Return a time in the future for a person, such as ``in 1h5m``."""
    return f"in {format_coarse(ahead)}"


def format_coarse(length: timedelta) -> str:
    """Return the two largest units of a length of time, in whole seconds at the finest."""
    rest = max(round(length.total_seconds()), 0)
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        amount, rest = divmod(rest, size)
        if amount or parts:
            parts.append(f"{amount}{unit}" if amount else "")
    return "".join(parts[:2]) or "0s"
