"""Delete finished jobs, with their logs."""

from collections.abc import Collection
from datetime import datetime, timedelta

import click

from queuectl.cli.app import App, examples, pass_app
from queuectl.cli.output import counted, echo_json_array
from queuectl.cli.params import dry_run_option, json_option, older_than_option
from queuectl.clock import format_instant
from queuectl.job import FINISHED, State
from queuectl.purge import Purge, StrayLogs
from queuectl.store.logs import logs_of
from queuectl.store.protocol import Store

_DEFAULT_STATES = (State.COMPLETED, State.CANCELLED)


@click.command(
    epilog=examples(
        "queuectl purge --older-than 7d", "queuectl purge --state dead --state cancelled --dry-run"
    )
)
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(FINISHED, case_sensitive=False),
    help="Only jobs in this state; can be repeated.  [default: completed and cancelled]",
)
@older_than_option
@dry_run_option
@json_option
@pass_app
def purge(
    app: App, *, states: tuple[State, ...], age_seconds: float | None, dry_run: bool, as_json: bool
) -> None:
    """Delete finished jobs and their logs.

    Prints how many jobs were deleted. A job that a blocked job waits for is kept. Logs of jobs that
    were removed by hand are deleted a day after their last change.
    """
    store = app.open()
    states = states or _DEFAULT_STATES
    purge_jobs(store, states, age_seconds, dry_run=dry_run, as_json=as_json)
    strays = StrayLogs(store, logs_of(store), _until(store, age_seconds), dry_run=dry_run)
    for _ in strays.purge():
        pass
    if strays.count:
        deleted = "would be deleted" if dry_run else "deleted"
        click.echo(f"{counted(strays.count, 'log')} of missing jobs {deleted}", err=True)


def purge_jobs(
    store: Store,
    states: Collection[State],
    age_seconds: float | None,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Delete the jobs in the states that ended longer ago, and report them."""
    deletion = Purge(store, logs_of(store), _until(store, age_seconds), dry_run=dry_run)
    purged = deletion.jobs(dict.fromkeys(states))
    count = 0
    try:
        if as_json:
            echo_json_array(
                {
                    "id": entry.id,
                    "state": entry.state,
                    "ended_at": entry.changed_at and format_instant(entry.changed_at),
                }
                for entry in purged
            )
            return
        for entry in purged:
            count += 1
            if dry_run:
                click.echo(entry.id)
    finally:
        if dry_run and not as_json:
            click.echo(f"{counted(count, 'job')} would be purged", err=True)
        elif not as_json:
            click.echo(f"{counted(count, 'job')} purged")
        if kept := len(deletion.kept):
            them = "it" if kept == 1 else "them"
            click.echo(
                f"{counted(kept, 'job')} kept: blocked jobs wait for {them};"
                " see 'queuectl list --state blocked'",
                err=True,
            )


def _until(store: Store, age_seconds: float | None) -> datetime | None:
    return None if age_seconds is None else store.now() - timedelta(seconds=age_seconds)
