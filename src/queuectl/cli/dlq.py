"""Inspect, retry and delete dead jobs: the dead letter queue."""

import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime

import click

from queuectl.cli.app import App, examples, pass_app
from queuectl.cli.list import command_cell, print_jobs, when_cell
from queuectl.cli.params import (
    dry_run_option,
    id_argument,
    ids_argument,
    json_option,
    limit_option,
    older_than_option,
    pattern_option,
    whole_ids,
)
from queuectl.cli.purge import purge_jobs
from queuectl.cli.show import show_job
from queuectl.errors import BadDocument, JobNotFound, WrongState
from queuectl.job import Job, State, describe
from queuectl.line import finally_shown
from queuectl.packed import Few
from queuectl.query import Row, attempts_text, find_job, select
from queuectl.store.logs import LogDir, logs_of
from queuectl.store.protocol import Store

_DEAD = (State.DEAD,)
_LOG_LINES = 10
_BYTES_PER_LINE = 8192  # a progress bar draws over one line again and again
DEAD_HEADERS = ("ID", "WHEN", "WHY", "ATTEMPTS", "COMMAND", "LAST LINE")


@click.group(epilog=examples("queuectl dlq list", "queuectl dlq retry --all --matching '^backup-'"))
def dlq() -> None:
    """Inspect, retry and delete dead jobs.

    A job is dead when it has failed as often as it may. The dead jobs are the dead letter queue.
    """


@dlq.command("list", epilog=examples("queuectl dlq list", "queuectl dlq list --json --limit 5"))
@limit_option
@json_option
@pass_app
def list_dead(app: App, *, limit: int | None, as_json: bool) -> None:
    """List the dead jobs, newest first.

    WHEN is the time of death, WHY is how the last attempt ended, ATTEMPTS is started/allowed, and
    LAST LINE is the end of the last log.
    """
    store = app.open()
    logs = logs_of(store)

    def cells(shown: Sequence[Row], now: datetime) -> list[Sequence[object]]:
        return [dead_cells(row, logs, now) for row in shown]

    empty = "no dead jobs"
    print_jobs(store, _DEAD, DEAD_HEADERS, cells, as_json=as_json, empty=empty, limit=limit)


@dlq.command("show", epilog=examples("queuectl dlq show flaky-1"))
@id_argument(State.DEAD)
@json_option
@pass_app
def show_dead(app: App, *, job_id: str, as_json: bool) -> None:
    """Show a dead job, its attempts, and the end of its last log.

    The beginning of an ID is enough if no other ID starts with it.
    """
    store = app.open()
    job = _checked_dead(find_job(store, job_id))
    show_job(store, job, as_json=as_json)
    if job.history and not as_json:
        number = job.history[-1].number
        logs = logs_of(store)
        click.echo(f"\nEND OF THE LOG OF ATTEMPT {number}")
        if not logs.exists(job.id, number):
            click.echo("(deleted)")
            return
        for line in _last_lines(logs, job.id, number, _LOG_LINES) or ["(nothing)"]:
            click.echo(line)


@dlq.command(
    epilog=examples(
        "queuectl dlq retry flaky-1 flaky-2",
        "queuectl dlq retry --all --matching 'curl .*example'",
    )
)
@ids_argument(State.DEAD, required=False)
@click.option("--all", "retry_all", is_flag=True, help="Retry all dead jobs.")
@pattern_option("--matching", "With --all: only jobs with a match in their id or command.")
@pass_app
def retry(
    app: App, *, job_ids: tuple[str, ...], retry_all: bool, pattern: re.Pattern[str] | None
) -> None:
    """Return dead jobs to the queue.

    Prints their ids. Their attempts are 0 again, their history is kept. If one of the IDs is not a
    dead job, nothing is changed.
    """
    if retry_all and job_ids:
        raise click.UsageError("give IDs or --all, not both")
    if not retry_all and not job_ids:
        raise click.UsageError("give the IDs of dead jobs, or --all")
    if pattern and not retry_all:
        raise click.UsageError("--matching needs --all")
    store = app.open()
    if retry_all:
        _retry_all(store, pattern)
        return
    with whole_ids(store, job_ids):
        for job_id in job_ids:
            _checked_dead(store.get(job_id))
    for job_id in job_ids:
        click.echo(store.retry(job_id, _DEAD, store.now()).id)


def _retry_all(store: Store, pattern: re.Pattern[str] | None) -> None:
    """Retry all dead jobs that can be read. Raises: BadDocument, at the end, for the others."""

    def matches(job: Job) -> object:
        return pattern is None or pattern.search(job.id) or pattern.search(job.command)

    unreadable = Few()
    none = True
    # The first to die runs first.
    for entry, job, _ in select(
        store, _DEAD, store.now(), reverse=True, matches=matches if pattern else None
    ):
        none = False
        if job is None:
            unreadable.append(entry.id)
            continue
        with suppress(JobNotFound, WrongState):  # somebody else was faster
            click.echo(store.retry(job.id, _DEAD, store.now()).id)
    if unreadable:
        raise BadDocument(
            f"cannot be read and were left as they are: {unreadable}; see 'queuectl dlq list'"
        )
    if none:
        click.echo("no dead jobs match" if pattern else "no dead jobs", err=True)


@dlq.command("purge", epilog=examples("queuectl dlq purge --older-than 30d"))
@older_than_option
@dry_run_option
@json_option
@pass_app
def purge_dead(app: App, *, age_seconds: float | None, dry_run: bool, as_json: bool) -> None:
    """Delete dead jobs and their logs.

    Prints how many jobs were deleted. A job that a blocked job waits for is kept.
    """
    purge_jobs(app.open(), _DEAD, age_seconds, dry_run=dry_run, as_json=as_json)


def dead_cells(row: Row, logs: LogDir, now: datetime) -> tuple[object, ...]:
    """Return the cells of a dead job's row, in the order of DEAD_HEADERS."""
    entry, job, _ = row
    why = last_line = None
    if job and job.history:
        why = describe(job.history[-1], short=True)
        last_line = "".join(_last_lines(logs, job.id, job.history[-1].number, 1)).strip()
    attempts = attempts_text(job) if job else None
    return entry.id, when_cell(entry, now), why, attempts, command_cell(row), last_line


def _last_lines(logs: LogDir, job_id: str, attempt: int, most: int) -> list[str]:
    """Return the last lines of a log that are not blank, as a terminal shows them in the end."""
    found: list[str] = []
    for line in reversed(logs.tail(job_id, attempt, most * _BYTES_PER_LINE)):
        shown = finally_shown(line)
        if shown.strip():
            found.append(shown[-_BYTES_PER_LINE:])
        if len(found) == most:
            break
    return found[::-1]


def _checked_dead(job: Job) -> Job:
    if job.state is not State.DEAD:
        raise WrongState(f"job {job.id} is {job.state}, not dead; see 'queuectl dlq list'")
    return job
