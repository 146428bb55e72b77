"""Count the jobs and the workers."""

import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import click

from queuectl.cli.app import App, echo, examples, pass_app
from queuectl.cli.output import echo_json, format_ago, format_in
from queuectl.cli.params import json_option
from queuectl.clock import format_instant, utc_now
from queuectl.job import State
from queuectl.store.base import Counts, WorkerRecord


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
    """Count the jobs by state, and the workers.

    A pending job is due when its time has come; what a blocked one waits for, "list" tells. Of
    the last minute all attempts are counted, whoever ran them and however they ended.
    """
    if live:
        if as_json:
            raise click.UsageError("give --watch or --json, not both")
        if sys.stdout is None or not sys.stdout.isatty():
            raise click.UsageError("--watch needs a terminal; without it, status prints once")
        from queuectl.cli.watch import watch

        watch(app.location)
        return
    store = app.open()
    now = utc_now()
    counts, workers = store.counts(now), store.workers()
    if as_json:
        document = status_document(counts, workers, store.ended_lately())
        echo_json({"store": store.location, **document})
    else:
        echo(status_text(counts, workers, store.ended_lately(), now))


def status_document(
    counts: Counts, workers: Sequence[WorkerRecord], ended_lately: int
) -> dict[str, Any]:
    """Return the JSON object of a status; its keys are always all there."""
    return {
        "jobs": {state: counts.by_state.get(state, 0) for state in State},
        "due": counts.due,
        "oldest_due_at": _instant_or_none(counts.oldest_due),
        "next_due_at": _instant_or_none(counts.next_due),
        "unreadable": counts.unreadable,
        "workers": {"live": len(workers), "busy": _busy(workers)},
        "ended_last_minute": ended_lately,
        "jobs_per_second": round(ended_lately / 60, 3),
    }


def status_text(
    counts: Counts, workers: Sequence[WorkerRecord], ended_lately: int, now: datetime
) -> str:
    """Return a status for a person, one state a line."""
    notes = {State.PENDING: _pending_note(counts, now)}
    lines = [
        f"{state:<10}  {counts.by_state.get(state, 0):>9}  {notes.get(state, '')}".rstrip()
        for state in State
    ]
    if counts.unreadable:
        lines.append(f"{'unreadable':<10}  {counts.unreadable:>9}  in corrupt/, with the reasons")
    note = f"{_busy(workers)} busy, {ended_lately} ended in the last minute"
    lines.append(f"{'workers':<10}  {len(workers):>9}  {note}")
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
