"""Delete jobs that have ended, with their logs."""

from collections.abc import Collection
from datetime import datetime, timedelta

import click

from queuectl.cli.common import (
    DURATION,
    App,
    echo,
    echo_json_array,
    examples,
    json_option,
    pass_app,
)
from queuectl.clock import format_instant, utc_now
from queuectl.job import State
from queuectl.logs import LogDir
from queuectl.packed import Packed
from queuectl.purge import StrayLogs
from queuectl.purge import purge as purge_finished
from queuectl.store.base import FINISHED, Entry, Store

_DEFAULT_STATES = (State.COMPLETED, State.CANCELLED)

older_than_option = click.option(
    "--older-than",
    "age_seconds",
    type=DURATION,
    metavar="DURATION",
    help="Only jobs that ended longer ago than this.",
)
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Delete nothing; print the ids of the jobs that would go."
)


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
    help="Jobs in this state; can be repeated; by default completed and cancelled ones.",
)
@older_than_option
@dry_run_option
@json_option
@pass_app
def purge(
    app: App, *, states: tuple[State, ...], age_seconds: float | None, dry_run: bool, as_json: bool
) -> None:
    """Delete jobs that have ended, and their logs.

    Prints how many. A job that a blocked one waits for is kept. Logs that were left by jobs which
    somebody has removed by hand go, too, a day after they were last written to.
    """
    store = app.open()
    states = states or _DEFAULT_STATES
    purge_jobs(store, states, age_seconds, dry_run=dry_run, as_json=as_json)
    _purge_strays(store, age_seconds, dry_run=dry_run)


def purge_jobs(
    store: Store,
    states: Collection[State],
    age_seconds: float | None,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Delete the jobs in the states that ended so long ago, or say which would go."""
    until = _until(age_seconds)
    kept: Packed[Entry] = Packed()
    purged = purge_finished(
        store, LogDir.of(store.location), dict.fromkeys(states), until, dry_run=dry_run, kept=kept
    )
    count = 0
    try:
        if as_json:
            echo_json_array(map(_document, purged))
            return
        for entry in purged:
            count += 1
            if dry_run:
                echo(entry.id)
    finally:
        if dry_run and not as_json:
            click.echo(f"{_jobs(count)} would be purged", err=True)
        elif not as_json:
            echo(f"{_jobs(count)} purged")
        if kept:
            them = "it" if len(kept) == 1 else "them"
            click.echo(
                f"{_jobs(len(kept))} kept: blocked jobs wait for {them};"
                " see 'queuectl list --state blocked'",
                err=True,
            )


def _until(age_seconds: float | None) -> datetime | None:
    return None if age_seconds is None else utc_now() - timedelta(seconds=age_seconds)


def _purge_strays(store: Store, age_seconds: float | None, *, dry_run: bool) -> None:
    logs = LogDir.of(store.location)
    strays = StrayLogs(store, logs, _until(age_seconds), dry_run=dry_run)
    strays.add_all()
    strays.purge()
    if strays.count:
        some = "1 log" if strays.count == 1 else f"{strays.count} logs"
        would = "would be " if dry_run else ""
        click.echo(f"{some} of jobs that are gone {would}deleted", err=True)


def _jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count} jobs"


def _document(entry: Entry) -> dict[str, str | None]:
    changed = entry.changed_at
    return {
        "id": entry.id,
        "state": entry.state,
        "ended_at": None if changed is None else format_instant(changed),
    }
