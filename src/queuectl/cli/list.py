"""List jobs."""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime
from itertools import islice

import click

from queuectl.cli.app import App, examples, pass_app
from queuectl.cli.output import echo_json_array, echo_table, format_ago, format_in
from queuectl.cli.params import REGEX, json_option, limit_option
from queuectl.errors import StoreBusy
from queuectl.job import State
from queuectl.query import SORT_KEYS, Row, attempts_text, command_matches, row_document, select
from queuectl.store.protocol import Store
from queuectl.store.values import Entry

TABLE_ROWS = 100


@click.command(
    "list",
    epilog=examples(
        "queuectl list --state pending --limit 20",
        "queuectl list --command-matches '^rsync ' --sort created --reverse",
    ),
)
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(State, case_sensitive=False),
    help="Only jobs in this state; can be repeated.",
)
@limit_option
@click.option(
    "--sort",
    type=click.Choice(SORT_KEYS, case_sensitive=False),
    help="Sort by this key, smallest or earliest first. Keys other than id and state take longer:"
    " every document is read.",
)
@click.option("--reverse", is_flag=True, help="Reverse the order.")
@click.option(
    "--command-matches",
    "pattern",
    type=REGEX,
    metavar="REGEX",
    help="Only jobs with a match in their command.",
)
@json_option
@pass_app
def list_jobs(
    app: App,
    *,
    states: tuple[State, ...],
    limit: int | None,
    sort: str | None,
    reverse: bool,
    pattern: re.Pattern[str] | None,
    as_json: bool,
) -> None:
    """List jobs: running, waiting and finished ones.

    Pending jobs are in the order in which they will run, finished jobs newest first.

    ATTEMPTS is started/allowed. WHEN is the due time of a pending job, what a blocked job waits
    for, and the time of the last state change of any other.
    """
    store = app.open()
    now = store.now()
    chosen = states or tuple(State)
    # A table that is cut short counts the rest by name, unless that takes the documents.
    most = TABLE_ROWS if limit is None and not as_json and pattern is None else limit
    matches = command_matches(pattern) if pattern else None
    rows = select(store, chosen, now, limit=most, sort=sort, reverse=reverse, matches=matches)
    if as_json:
        echo_json_array(map(row_document, rows))
        return

    def rest() -> int:
        return count_rest(store, chosen, now) if pattern is None else sum(1 for _ in rows)

    def cells(shown: Sequence[Row]) -> list[Sequence[object]]:
        gone = _gone_parents(store, [row.entry for row in shown])
        return [(*_columns(row, now, gone), command_cell(row)) for row in shown]

    headers = ["ID", "STATE", "PRI", "ATTEMPTS", "WHEN", "COMMAND"]
    print_rows(rows, headers, cells, limit=limit, rest=rest, empty=_none_text(states, pattern))


def print_rows(
    rows: Iterator[Row],
    headers: Sequence[str],
    cells: Callable[[Sequence[Row]], list[Sequence[object]]],
    *,
    limit: int | None,
    rest: Callable[[], int],
    empty: str,
) -> None:
    """Print jobs as a table; without a limit it stops at 100, and the rest is counted on stderr."""
    shown = list(islice(rows, TABLE_ROWS) if limit is None else rows)
    echo_table(cells(shown), headers, empty=empty)
    if limit is None and len(shown) == TABLE_ROWS and (more := rest()) > 0:
        click.echo(
            f"{more} more; --limit or --json shows {'it' if more == 1 else 'them'}", err=True
        )


def count_rest(store: Store, states: Collection[State], now: datetime) -> int:
    """Return how many jobs in the states a full table leaves out."""
    by_state = store.counts(now).by_state
    return sum(by_state.get(state, 0) for state in states) - TABLE_ROWS


def _none_text(states: Collection[State], pattern: re.Pattern[str] | None) -> str:
    """Return the message for a list without jobs."""
    chosen = list(dict.fromkeys(states))
    names = " or ".join(filter(None, [", ".join(chosen[:-1]), *chosen[-1:]]))
    return " ".join(filter(None, ["no", names, "jobs", "match" if pattern else ""]))


def _gone_parents(store: Store, entries: Sequence[Entry]) -> set[str]:
    """Return the ids that blocked jobs wait for, and that no job has any more."""
    waited_for = {each.parent for each in entries if each.parent and each.parent_state is None}
    try:
        # One that has ended a moment ago is found, too.
        return waited_for - store.find(waited_for).keys() if waited_for else waited_for
    except StoreBusy:
        return set()  # unknown is not gone


def _columns(row: Row, now: datetime, gone: Collection[str]) -> tuple[object, ...]:
    entry, job = row.entry, row.job
    priority, attempts = (job.priority, attempts_text(job)) if job else (entry.priority, None)
    return entry.id, entry.state, priority, attempts, when_cell(entry, now, gone)


def when_cell(entry: Entry, now: datetime, gone: Collection[str] = ()) -> str | None:
    """Return when a pending job is due, what a blocked one waits for, or the age of the state.

    ``gone`` are the ids of jobs that do not exist any more.
    """
    if entry.state is State.PENDING:
        # A file that was dropped there by hand has no time before it is adopted: it is due.
        ahead = (entry.run_at - now).total_seconds() if entry.run_at else 0
        return format_in(ahead) if ahead > 0 else "due"
    if entry.parent is not None:
        state = "gone" if entry.parent in gone else entry.parent_state
        return f"after {entry.parent} ({state})" if state is not None else f"after {entry.parent}"
    if entry.changed_at is not None:
        return format_ago((now - entry.changed_at).total_seconds())
    return None


def command_cell(row: Row) -> str:
    """Return the command, or why the document cannot be read."""
    return f"(unreadable: {row.problem})" if row.job is None else row.job.command
