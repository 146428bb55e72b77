"""Share what several commands need: the store, types of options, and safe output."""

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from queuectl.clock import parse_duration, utc_now
from queuectl.config import whole_number
from queuectl.errors import QueuectlError, StoreError, UsageError
from queuectl.job import State
from queuectl.store import absolute, open_store, open_to_add

if TYPE_CHECKING:
    from queuectl.store.base import Adder, Store
    from queuectl.when import When


class App:
    """Hold what the global options chose; opens the store for a command."""

    def __init__(self, location: str) -> None:
        if not location:
            raise click.UsageError("--store is empty; give a directory or a URL")
        self.location = absolute(location)

    def open(self, *, create: bool = False) -> "Store":
        """Open the store until the command ends.

        With ``create`` it is made where it is not there; without, an absent one is an empty queue.
        """
        store = open_store(self.location, create=create)
        click.get_current_context().find_root().call_on_close(store.close)
        return store

    def open_to_add(self, *, create: bool = False) -> "Adder":
        """Open the store as ``open`` does, but only to add jobs."""
        store = open_to_add(self.location, create=create)
        click.get_current_context().find_root().call_on_close(store.close)
        return store


pass_app = click.make_pass_decorator(App)


class _Duration(click.ParamType[float]):
    """Take ``90``, ``15m`` or ``1h30m`` as seconds."""

    name = "duration"

    def __init__(self, *, allow_zero: bool = False) -> None:
        self.allow_zero = allow_zero

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        try:
            return parse_duration(value, allow_zero=self.allow_zero)
        except UsageError as error:
            self.fail(str(error), param, ctx)


class _Instant(click.ParamType["When"]):
    """Take ``02:30``, ``tomorrow 6am``, ISO 8601 and the like, in local time, as an instant."""

    name = "instant"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> "When":
        from queuectl.when import When, parse_when

        if isinstance(value, When):
            return value
        try:
            return parse_when(value, utc_now())
        except UsageError as error:
            self.fail(str(error), param, ctx)


class Whole(click.ParamType[int]):
    """Take a whole number in bounds, and say which those are where it is not in them."""

    name = "number"

    def __init__(self, least: int, most: int | None = None) -> None:
        self._parse = whole_number(least, most)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number, or fail with its bounds."""
        if isinstance(value, int):
            return value
        try:
            return self._parse(value.strip())
        except UsageError as error:
            self.fail(f"{value!r} {error}", param, ctx)


class _Regex(click.ParamType["re.Pattern[str]"]):
    """Take a regular expression."""

    name = "regex"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> "re.Pattern[str]":
        if isinstance(value, re.Pattern):
            return value
        import warnings

        try:
            with warnings.catch_warnings():
                # A later Python may read "[[" otherwise: no news for who types it now.
                warnings.simplefilter("ignore", FutureWarning)
                return re.compile(value)
        except (re.error, RecursionError, OverflowError) as error:
            self.fail(f"{value!r} is not a regular expression: {error}", param, ctx)


DURATION = _Duration()
DURATION_OR_ZERO = _Duration(allow_zero=True)
INSTANT = _Instant()
REGEX = _Regex()


def complete_ids(*states: State) -> Callable[..., Any]:
    """Return what completes the ids of jobs in one of the states, or in any.

    Ids that stand there already are left out. Nothing is said of a store that cannot be used: the
    command itself will.
    """

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> Any:
        from itertools import chain, islice

        from click.shell_completion import CompletionItem

        from queuectl.store.base import IN_ORDER

        given = ctx.params.get(param.name or "")
        known = set(given) if isinstance(given, (list, tuple)) else set()
        try:
            store = open_store(App(ctx.find_root().params["store"]).location)
            try:
                found = chain.from_iterable(
                    ((job_id, state) for job_id in store.ids(state, incomplete))
                    for state in IN_ORDER
                    if not states or state in states
                )
                some = dict(islice(found, _MOST_IDS))
            finally:
                store.close()
        except (QueuectlError, click.ClickException, OSError):
            return []
        return [
            CompletionItem(job_id, help=state)
            for job_id, state in sorted(some.items())
            if job_id not in known
        ]

    return complete


state_option = click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(State, case_sensitive=False),
    help="Only jobs in this state; can be repeated.",
)
_MAY_BE_CUT = ("COMMAND", "HOST", "LAST LINE")
_LEAST_WIDTH = 10
# Where tabulate is to count columns: a cell begins, and goes on. Neither is printable.
_CELL, _MORE = "\ue000", "\ue001"
_MOST_IDS = 1000  # more help nobody to choose, and a shell takes its time to lay them out

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def examples(*lines: str) -> str:
    """Return the end of a command's help: how it is used."""
    return "\b\nExample:\n  " + "\n  ".join(lines)


def echo(text: str, *, newline: bool = True) -> None:
    """Print a line of data on stdout, or a part of one.

    Raises: StoreError where stdout is closed, OSError where it cannot be written.
    """
    if sys.stdout is None:
        raise StoreError("stdout is closed: open it, or send it to /dev/null")
    click.echo(text, nl=newline)


def load_all() -> None:
    """Load what a program that lives long may ever need: workers, and what waits or watches.

    Who upgrades the program takes its files away, and puts those of another version there.
    """
    import codecs
    from importlib import import_module

    import queuectl.store
    from queuectl.text import output_encoding

    # For settings that were broken by hand, for bugs, and for what is to be shown.
    for name in ("difflib", "traceback", "unicodedata"):
        import_module(name)
    for encoding in ("unicode_escape", output_encoding()):
        codecs.lookup(encoding)
    queuectl.store.load_all()


def echo_json(value: Any) -> None:
    """Print one JSON document; ASCII alone, so that no terminal or locale can misread it."""
    import json

    echo(json.dumps(value, indent=2, allow_nan=False))


def echo_json_array(values: Iterable[Any]) -> None:
    """Print a JSON array, one element a line, so that a long one is never held whole."""
    import json

    separator = "["
    for value in values:
        echo(separator + "\n  " + json.dumps(value, allow_nan=False), newline=False)
        separator = ","
    echo("[]" if separator == "[" else "\n]")


def echo_table(
    rows: Sequence[Sequence[object]], headers: Sequence[str], *, empty: str = ""
) -> None:
    """Print a table with what jobs and users brought made printable; None is an empty cell.

    On a terminal commands and the like are cut so that a row fits in its width; elsewhere nothing
    is. Where there is no row, ``empty`` says so on stderr, and nothing is printed.
    """
    if empty and not rows:
        click.echo(empty, err=True)
        return
    on_terminal = sys.stdout is not None and sys.stdout.isatty()
    echo("\n".join(table_lines(rows, headers, _terminal_width() if on_terminal else None)))


def table_lines(
    rows: Iterable[Sequence[object]], headers: Sequence[str], width: int | None
) -> list[str]:
    """Return the lines of a table as echo_table prints it, cut to a width unless that is None."""
    from tabulate import tabulate

    from queuectl.text import columns, printable

    cells = [["" if cell is None else printable(str(cell)) for cell in row] for row in rows]
    if width is not None:
        # Terminals do not agree on how wide a sign is that this turns into an emoji.
        cells = [[cell.replace("\ufe0f", "") for cell in row] for row in cells]
        _fit(cells, headers, width)
    wide: list[str] = []

    def stand_in(cell: str) -> str:
        """Return what has as many characters as a cell has columns."""
        if cell.isascii():
            return cell
        wide.append(cell)
        return _CELL + _MORE * (columns(cell) - 1)

    # disable_numparse: an id such as 1e5 is no number. The headers are a row, since tabulate makes
    # the columns of headers wider; its lines are as long as the longest command.
    shapes = [[stand_in(cell) for cell in row] for row in cells]
    text = tabulate([headers, *shapes], tablefmt="plain", disable_numparse=True)
    if wide:
        rest = iter(wide)
        text = re.sub(f"{_CELL}{_MORE}*", lambda _: next(rest), text)
    return [line.rstrip() for line in text.split("\n")]


def _fit(rows: list[list[str]], headers: Sequence[str], width: int) -> None:
    """Cut the cells of the columns that may be cut, so that a row fits; the short ones go whole."""
    from queuectl.text import columns, shortened

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


def _terminal_width() -> int:
    from shutil import get_terminal_size

    return get_terminal_size().columns


def format_ago(seconds: float) -> str:
    """Return how long ago something was, as a person reads it."""
    return f"{format_coarse(seconds)} ago"


def format_in(seconds: float) -> str:
    """Return how far ahead something is, as a person reads it."""
    return f"in {format_coarse(seconds)}"


def format_coarse(seconds: float) -> str:
    """Return the two largest units of a length, whole seconds at the least."""
    rest = max(round(seconds), 0)
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        amount, rest = divmod(rest, size)
        if amount or parts:
            parts.append(f"{amount}{unit}" if amount else "")
    return "".join(parts[:2]) or "0s"
