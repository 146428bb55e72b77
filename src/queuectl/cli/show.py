"""Show a job and its attempts."""

import json
from collections.abc import Iterator
from datetime import datetime

import click

from queuectl.cli.app import App, examples, pass_app
from queuectl.cli.output import echo_json, echo_table, format_ago, format_in
from queuectl.cli.params import id_argument, json_option
from queuectl.clock import format_duration, format_instant
from queuectl.document import job_document
from queuectl.errors import BadDocument, ConfigError, JobNotFound, StoreBusy
from queuectl.job import Job, State, describe
from queuectl.query import attempts_text, find_job
from queuectl.store.logs import logs_of
from queuectl.store.protocol import Store
from queuectl.text import printable


@click.command(epilog=examples("queuectl show sleepy-job", "queuectl show sle --json"))
@id_argument()
@json_option
@pass_app
def show(app: App, *, job_id: str, as_json: bool) -> None:
    """Show a job and its attempts.

    The beginning of an ID is enough if no other ID starts with it.
    """
    store = app.open()
    show_job(store, find_job(store, job_id), as_json=as_json)


def show_job(store: Store, job: Job, *, as_json: bool) -> None:
    """Print a job: as its document, or its fields and a table of its attempts."""
    if as_json:
        echo_json(job_document(job))
        return
    now = store.now()
    for name, value in _fields(store, job, now):
        click.echo(f"{printable(name):<12}  {printable(value)}")
    if job.history:
        click.echo("")
        echo_table(list(_attempt_rows(job)), ["ATTEMPT", "OUTCOME", "STARTED", "TOOK", "WORKER"])


def _fields(store: Store, job: Job, now: datetime) -> Iterator[tuple[str, str]]:
    yield "id", job.id
    yield "state", job.state
    yield "command", job.command
    yield "priority", str(job.priority)
    yield "attempts", attempts_text(job)
    timeout = job.timeout_seconds
    yield "timeout", "none" if timeout is None else format_duration(timeout)
    if job.retry_on:
        yield "retry on", job.retry_on
    if job.no_retry_on:
        yield "no retry on", job.no_retry_on
    yield "cwd", job.cwd
    for name, value in job.env.items():
        yield "env", f"{name}={value}"
    for name, parents in (("after", job.after), ("after any", job.after_any)):
        for parent in parents:
            yield name, f"{parent} ({_state_of(store, parent)})"
    yield "created", _instant_text(job.created_at, now)
    yield "updated", _instant_text(job.updated_at, now)
    if job.state in (State.PENDING, State.BLOCKED):
        yield "run at", _instant_text(job.run_at, now)
    if job.history:
        last = job.history[-1].number
        logs = logs_of(store)
        deleted = "" if logs.exists(job.id, last) else " (deleted)"
        yield "last log", logs.path(job.id, last) + deleted
    for name, value in job.extra.items():
        yield name, json.dumps(value, ensure_ascii=False)


def _state_of(store: Store, job_id: str) -> str:
    try:
        return store.get(job_id).state
    except JobNotFound:
        return "no such job"
    except (BadDocument, ConfigError):  # a newer version has written it
        return "unreadable"
    except StoreBusy:
        return "unknown"


def _instant_text(instant: datetime, now: datetime) -> str:
    away = format_in(instant - now) if instant > now else format_ago(now - instant)
    return f"{format_instant(instant)} ({away})"


def _attempt_rows(job: Job) -> Iterator[tuple[object, ...]]:
    """Yield a row for each recorded attempt, and one for the attempts that were omitted."""
    last = None
    for attempt in job.history:
        if job.history_omitted and last is not None and attempt.number > last + 1:
            yield "...", f"{attempt.number - last - 1:,} omitted", None, None, None
        started = f"{attempt.started_at:%Y-%m-%dT%H:%M:%SZ}"
        seconds = attempt.duration_seconds
        took = None if seconds is None else format_duration(seconds)
        yield attempt.number, describe(attempt), started, took, attempt.worker
        last = attempt.number
