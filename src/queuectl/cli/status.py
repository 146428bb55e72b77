"""Count the jobs and the workers."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import click

from queuectl.cli.common import (
    App,
    echo,
    echo_json,
    examples,
    format_ago,
    format_in,
    json_option,
    pass_app,
)
from queuectl.clock import format_instant, utc_now
from queuectl.job import State
from queuectl.store.base import Counts, WorkerRecord


@click.command(epilog=examples("queuectl status", "queuectl status --json | jq .jobs.dead"))
@json_option
@pass_app
def status(app: App, *, as_json: bool) -> None:
    """Count the jobs by state, and the workers.

    A pending job is due when its time has come; what a blocked one waits for, "list" tells.
    """
    store = app.open()
    now = utc_now()
    counts, workers = store.counts(now), store.workers()
    if as_json:
        echo_json({"store": store.location, **status_document(counts, workers)})
    else:
        echo(status_text(counts, workers, now))


def status_document(counts: Counts, workers: Sequence[WorkerRecord]) -> dict[str, Any]:
    """Return the JSON object of a status; its keys are always all there."""
    return {
        "jobs": {state: counts.by_state.get(state, 0) for state in State},
        "due": counts.due,
        "oldest_due_at": _instant_or_none(counts.oldest_due),
        "next_due_at": _instant_or_none(counts.next_due),
        "unreadable": counts.unreadable,
        "workers": {"live": len(workers), "busy": _busy(workers)},
    }


def status_text(counts: Counts, workers: Sequence[WorkerRecord], now: datetime) -> str:
    """Return a status for a person, one state a line."""
    notes = {State.PENDING: _pending_note(counts, now)}
    lines = [
        f"{state:<10}  {counts.by_state.get(state, 0):>9}  {notes.get(state, '')}".rstrip()
        for state in State
    ]
    if counts.unreadable:
        lines.append(f"{'unreadable':<10}  {counts.unreadable:>9}  in corrupt/, with the reasons")
    lines.append(f"{'workers':<10}  {len(workers):>9}  {_busy(workers)} busy")
    return "\n".join(lines)


def _pending_note(counts: Counts, now: datetime) -> str:
    notes = []
    if counts.by_state.get(State.PENDING, 0):
        notes.append(f"{counts.due} due")
    if counts.oldest_due is not None:
        since = (now - counts.oldest_due).total_seconds()
        notes.append(f"oldest {format_ago(since)}")
    if counts.next_due is not None:
        notes.append(f"next {format_in((counts.next_due - now).total_seconds())}")
    return ", ".join(notes)


def _busy(workers: Sequence[WorkerRecord]) -> int:
    return sum(worker.job is not None for worker in workers)


def _instant_or_none(instant: datetime | None) -> str | None:
    return None if instant is None else format_instant(instant)
