"""List the jobs."""

import re
from collections.abc import Collection, Sequence
from datetime import datetime
from itertools import islice

import click

from queuectl.cli.common import (
    REGEX,
    App,
    Whole,
    echo_json_array,
    echo_table,
    examples,
    format_ago,
    format_in,
    json_option,
    pass_app,
    state_option,
)
from queuectl.clock import utc_now
from queuectl.errors import StoreBusy
from queuectl.job import State
from queuectl.query import SORT_KEYS, Row, attempts_text, command_matches, row_document, select
from queuectl.store.base import Entry, Store

TABLE_ROWS = 100

limit_option = click.option(
    "--limit",
    type=Whole(1),
    metavar="N",
    help="At most N jobs; without it, a table stops at 100 and JSON at nothing.",
)


@click.command(
    "list",
    epilog=examples(
        "queuectl list --state pending --limit 20",
        "queuectl list --command-matches '^rsync ' --sort created --reverse",
    ),
)
@state_option
@limit_option
@click.option(
    "--sort",
    type=click.Choice(SORT_KEYS, case_sensitive=False),
    help="Smallest or earliest first; by other than id and state this reads every document.",
)
@click.option("--reverse", is_flag=True, help="Turn the order round.")
@click.option(
    "--command-matches",
    "pattern",
    type=REGEX,
    metavar="REGEX",
    help="Only jobs in whose command this is found.",
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
    """List the jobs: what runs, what waits, what is finished.

    Pending jobs are listed in the order in which they will run, finished ones newest first.
    ATTEMPTS are those made, the running one included, of how many in all; WHEN is when a pending
    job is due, and when any other came to where it is.
    """
    store = app.open()
    now = utc_now()
    chosen = states or tuple(State)
    # A table that is cut short counts the rest by name, unless only the documents can tell.
    most = TABLE_ROWS if limit is None and not as_json and pattern is None else limit
    rows = select(
        store,
        chosen,
        now,
        limit=most,
        sort=sort,
        reverse=reverse,
        matches=command_matches(pattern) if pattern else None,
    )
    if as_json:
        echo_json_array(map(row_document, rows))
        return
    shown = list(islice(rows, TABLE_ROWS) if limit is None else rows)
    gone = _gone_parents(store, [row.entry for row in shown])
    echo_table(
        [(*_columns(row, now, gone), command_cell(row)) for row in shown],
        ["ID", "STATE", "PRI", "ATTEMPTS", "WHEN", "COMMAND"],
        empty=_nothing(states, pattern),
    )
    if limit is None and len(shown) == TABLE_ROWS:
        by_state = store.counts(now).by_state if pattern is None else {}
        tell_more(
            sum(1 for _ in rows)
            if pattern
            else sum(by_state.get(state, 0) for state in chosen) - len(shown)
        )


def _nothing(states: Collection[State], pattern: re.Pattern[str] | None) -> str:
    """Return what is said where no job is to be listed."""
    chosen = list(dict.fromkeys(states))
    names = " or ".join(filter(None, [", ".join(chosen[:-1]), *chosen[-1:]]))
    return " ".join(filter(None, ["no", names, "jobs", "match" if pattern else ""]))


def _gone_parents(store: Store, entries: Sequence[Entry]) -> set[str]:
    """Return the ids that blocked jobs wait for, and that no job has any more."""
    waited_for = {each.parent for each in entries if each.parent and each.parent_state is None}
    if not waited_for:
        return waited_for
    try:
        # One that has ended a moment ago is found, too.
        return waited_for - store.find(waited_for).keys()
    except StoreBusy:
        return set()  # a parent that cannot be told to be gone


def _columns(row: Row, now: datetime, gone: Collection[str]) -> tuple[object, ...]:
    entry, job = row.entry, row.job
    if job is None:
        return entry.id, entry.state, entry.priority, None, when_cell(entry, now, gone)
    return entry.id, entry.state, job.priority, attempts_text(job), when_cell(entry, now, gone)


def when_cell(entry: Entry, now: datetime, gone: Collection[str] = ()) -> str | None:
    """Return when a pending job is due, what a blocked one waits for, and since when any other.

    ``gone`` are the ids of jobs that do not exist any more.
    """
    if entry.state is State.PENDING:
        # One that a hand has put there and nobody has adopted yet has no time: it is due.
        ahead = (entry.run_at - now).total_seconds() if entry.run_at else 0
        return format_in(ahead) if ahead > 0 else "due"
    if entry.parent is not None:
        fate = "gone" if entry.parent in gone else entry.parent_state
        return f"after {entry.parent} ({fate})" if fate is not None else f"after {entry.parent}"
    if entry.changed_at is not None:
        return format_ago((now - entry.changed_at).total_seconds())
    return None


def command_cell(row: Row) -> str:
    """Return the command, or why it cannot be told."""
    return f"(unreadable: {row.problem})" if row.job is None else row.job.command


def tell_more(more: int) -> None:
    """Say on stderr how many rows a table has left out."""
    if more > 0:
        them = "it" if more == 1 else "them"
        click.echo(f"{more} more; --limit or --json shows {them}", err=True)
