"""Count the jobs and the workers, once or live."""

import sys
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from typing import Any, NamedTuple

import click

from queuectl.cli.app import App, examples, load_all, pass_app
from queuectl.cli.output import echo_json, format_ago, format_coarse, format_in, table_lines
from queuectl.cli.params import json_option
from queuectl.clock import format_instant
from queuectl.job import State
from queuectl.store import open_store
from queuectl.store.protocol import Store
from queuectl.store.values import Counts, WorkerRecord
from queuectl.text import printable

_FAILURES = 5


@click.command(
    epilog=examples(
        "queuectl status", "queuectl status --watch", "queuectl status --json | jq .jobs.dead"
    )
)
@click.option(
    "--watch", "live", is_flag=True, help="Show it live, with the workers, until Ctrl-C or q."
)
@json_option
@pass_app
def status(app: App, *, live: bool, as_json: bool) -> None:
    """Count the jobs in each state, and the workers.

    A pending job is due when its time has come. "ended in the last minute" counts the attempts of
    all workers, whatever their outcome.
    """
    if live:
        if as_json:
            raise click.UsageError("give --watch or --json, not both")
        if not sys.stdout.isatty():
            raise click.UsageError("--watch needs a terminal; without it, status prints once")
        import tabulate  # noqa: F401  (a page may need it when its file has been replaced)

        from queuectl.cli.screen import show

        load_all()
        show(lambda width, height: page(app.location, width, height))
        return
    store = app.open()
    look = _Look.at(store)
    if as_json:
        echo_json({"store": store.location, **look.document()})
    else:
        click.echo("\n".join(look.lines()))


class _Look(NamedTuple):
    """The numbers of a store at one moment."""

    now: datetime
    counts: Counts
    workers: Sequence[WorkerRecord]
    busy: int
    ended_lately: int
    set_aside_in: str

    @classmethod
    def at(cls, store: Store) -> "_Look":
        now = store.now()
        workers, ended_lately = store.workers.live(), store.workers.ended_lately()
        busy = sum(worker.job is not None for worker in workers)
        return cls(now, store.counts(now), workers, busy, ended_lately, store.set_aside_in)

    def document(self) -> dict[str, Any]:
        """Return the JSON object of a status; its keys are always the same."""
        counts = self.counts
        return {
            "jobs": {state: counts.by_state.get(state, 0) for state in State},
            "due": counts.due,
            "oldest_due_at": counts.oldest_due and format_instant(counts.oldest_due),
            "next_due_at": counts.next_due and format_instant(counts.next_due),
            "unreadable": counts.unreadable,
            "workers": {"live": len(self.workers), "busy": self.busy},
            "ended_last_minute": self.ended_lately,
            "jobs_per_second": round(self.ended_lately / 60, 3),
        }

    def lines(self) -> list[str]:
        """Return a status for a person, one state a line."""
        notes = {State.PENDING: self._pending_note()}
        rows: list[tuple[str, int, str]] = [
            (state, self.counts.by_state.get(state, 0), notes.get(state, "")) for state in State
        ]
        if self.counts.unreadable:
            note = f"in {self.set_aside_in}, with the reasons"
            rows.append(("unreadable", self.counts.unreadable, note))
        note = f"{self.busy} busy, {self.ended_lately} ended in the last minute"
        rows.append(("workers", len(self.workers), note))
        return [f"{name:<10}  {count:>9}  {note}".rstrip() for name, count, note in rows]

    def _pending_note(self) -> str:
        notes = []
        if self.counts.by_state.get(State.PENDING, 0):
            notes.append(f"{self.counts.due} due")
        if self.counts.oldest_due is not None:
            notes.append(f"oldest {format_ago(self.now - self.counts.oldest_due)}")
        if self.counts.next_due is not None:
            notes.append(f"next {format_in(self.counts.next_due - self.now)}")
        return ", ".join(notes)


def page(location: str, width: int, height: int) -> list[str]:
    """Return the lines of a live status, cut to the columns and rows of a terminal."""
    from queuectl.cli.dlq import DEAD_HEADERS, dead_cells
    from queuectl.query import select
    from queuectl.store.logs import logs_of

    # Opened each time: the store may not exist yet, or be replaced by another.
    with closing(open_store(location)) as store:
        look = _Look.at(store)
        logs = logs_of(store)
        rows = select(store, (State.DEAD,), look.now, limit=_FAILURES)
        failures = [dead_cells(row, logs, look.now) for row in rows]
    lines = [printable(f"{format_instant(look.now)[:19]}Z  {location}"), "", *look.lines()]
    below = ["", *table_lines(failures, DEAD_HEADERS, width)] if failures else []
    if look.workers:
        # Of the other rows, one is empty, one the header, and one says how many more there are.
        room = max(height - len(lines) - len(below) - 3, 1)
        lines += ["", *_worker_lines(look, room, width)]
    return (lines + below)[:height]


def _worker_lines(look: _Look, room: int, width: int) -> list[str]:
    """Return a table of workers, the longest busy first."""
    now = look.now
    workers = sorted(look.workers, key=lambda each: (each.job is None, each.since))
    rows = [
        (each.name, each.job or "idle", each.attempt, format_coarse(now - each.since), each.settled)
        for each in workers[:room]
    ]
    more = [f"and {len(workers) - room} more"] if len(workers) > room else []
    return [*table_lines(rows, ("WORKER", "JOB", "ATTEMPT", "FOR", "DONE"), width), *more]
