"""List jobs."""

import re
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from itertools import islice
from typing import Any

import click

from queuectl.cli.app import App, examples, pass_app
from queuectl.cli.output import echo_json_array, echo_table, format_ago, format_in
from queuectl.cli.params import json_option, limit_option, pattern_option
from queuectl.errors import StoreBusy
from queuectl.job import Job, State
from queuectl.query import SORT_KEYS, Row, attempts_text, row_document, select
from queuectl.store.protocol import Store
from queuectl.store.values import Entry

_TABLE_ROWS = 100


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
@pattern_option("--command-matches", "Only jobs with a match in their command.")
@json_option
@pass_app
def list_jobs(
    app: App, /, *, states: tuple[State, ...], pattern: re.Pattern[str] | None, **options: Any
) -> None:
    """List jobs: running, waiting and finished ones.

    Pending jobs are in the order in which they will run, finished jobs newest first.

    ATTEMPTS is started/allowed. WHEN is the due time of a pending job, what a blocked job waits
    for, and the time of the last state change of any other.
    """
    store = app.open()

    def cells(shown: Sequence[Row], now: datetime) -> list[Sequence[object]]:
        gone = _gone_parents(store, [row.entry for row in shown])
        return [_cells(row, now, gone) for row in shown]

    print_jobs(
        store,
        states or tuple(State),
        ["ID", "STATE", "PRI", "ATTEMPTS", "WHEN", "COMMAND"],
        cells,
        empty=_none_text(states, pattern),
        matches=(lambda job: pattern.search(job.command)) if pattern else None,
        **options,
    )


def print_jobs(
    store: Store,
    states: Collection[State],
    headers: Sequence[str],
    cells: Callable[[Sequence[Row], datetime], list[Sequence[object]]],
    *,
    as_json: bool,
    empty: str,
    limit: int | None,
    matches: Callable[[Job], object] | None = None,
    **order: Any,
) -> None:
    """Print jobs as JSON or as a table, which stops at 100 without a limit and counts the rest."""
    now = store.now()
    # A table that is cut short counts the rest by name, unless that takes the documents.
    most = limit if as_json or matches else limit or _TABLE_ROWS
    rows = select(store, states, now, limit=most, matches=matches, **order)
    if as_json:
        echo_json_array(map(row_document, rows))
        return
    shown = list(islice(rows, _TABLE_ROWS) if limit is None else rows)
    echo_table(cells(shown, now), headers, empty=empty)
    if limit is None and len(shown) == _TABLE_ROWS:
        if matches:
            more = sum(1 for _ in rows)
        else:
            by_state = store.counts(now).by_state
            more = sum(by_state.get(state, 0) for state in states) - _TABLE_ROWS
        if more > 0:
            them = "it" if more == 1 else "them"
            click.echo(f"{more} more; --limit or --json shows {them}", err=True)


def _none_text(states: Collection[State], pattern: re.Pattern[str] | None) -> str:
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


def _cells(row: Row, now: datetime, gone: Collection[str]) -> tuple[object, ...]:
    entry, job = row.entry, row.job
    priority, attempts = (job.priority, attempts_text(job)) if job else (entry.priority, None)
    when = when_cell(entry, now, gone)
    return entry.id, entry.state, priority, attempts, when, command_cell(row)


def when_cell(entry: Entry, now: datetime, gone: Collection[str] = ()) -> str | None:
    """Return when a pending job is due, what a blocked one waits for, or the age of the state.

    ``gone`` are the ids of jobs that do not exist any more.
    """
    if entry.state is State.PENDING:
        # A file that was dropped there by hand has no time before it is adopted: it is due.
        return format_in(entry.run_at - now) if entry.run_at and entry.run_at > now else "due"
    if entry.parent is not None:
        state = "gone" if entry.parent in gone else entry.parent_state
        return f"after {entry.parent}" + (f" ({state})" if state is not None else "")
    return None if entry.changed_at is None else format_ago(now - entry.changed_at)


def command_cell(row: Row) -> str:
    """Return the command, or why the document cannot be read."""
    return f"(unreadable: {row.problem})" if row.job is None else row.job.command
