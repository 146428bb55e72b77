"""Start, stop and list workers."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from queuectl.cli.common import (
    DURATION,
    App,
    Whole,
    echo_json,
    echo_table,
    examples,
    format_ago,
    json_option,
    load_all,
    pass_app,
)
from queuectl.clock import format_instant, utc_now
from queuectl.text import printable

if TYPE_CHECKING:
    from queuectl.store.base import WorkerRecord

_WORKERS_SHOWN = 10
MAX_COUNT = 1000  # each is a process


@click.group(epilog=examples("queuectl worker start --count 4 --detach", "queuectl worker stop"))
def worker() -> None:
    """Start, stop and list workers."""


@worker.command(
    epilog=examples(
        "queuectl worker start --count 4 --detach",
        "queuectl worker start --drain --unless-running --quiet",
    )
)
@click.option(
    "--count",
    type=Whole(1, MAX_COUNT),
    default=1,
    show_default=True,
    metavar="N",
    help="How many jobs to run at a time; 1000 at most.",
)
@click.option(
    "--drain",
    is_flag=True,
    help="End, with code 0, when no job is due and these workers run none.",
)
@click.option(
    "--unless-running",
    is_flag=True,
    help="Start none, with code 0, if workers are running already.",
)
@click.option("--detach", is_flag=True, help="Leave the workers in the background.")
@click.option("--quiet", is_flag=True, help="Say only what went wrong.")
@click.pass_context
def start(
    ctx: click.Context, *, count: int, drain: bool, unless_running: bool, detach: bool, quiet: bool
) -> None:
    """Start workers, in the foreground.

    Ctrl-C (or SIGTERM) lets them finish what they run; a second one ends their commands and puts
    those jobs back, the attempt not counted.
    """
    from queuectl.pool import run_pool

    load_all()
    location = ctx.ensure_object(App).location
    code = run_pool(
        location, count, drain=drain, unless_running=unless_running, detach=detach, quiet=quiet
    )
    ctx.exit(code)


@worker.command(epilog=examples("queuectl worker stop", "queuectl worker stop --now --timeout 30s"))
@click.option("--now", is_flag=True, help="End the running commands and put their jobs back.")
@click.option(
    "--timeout",
    "timeout_seconds",
    type=DURATION,
    metavar="DURATION",
    help="Wait so long at most, then end with code 75.",
)
@pass_app
def stop(app: App, *, now: bool, timeout_seconds: float | None) -> None:
    """Stop all workers, and wait until they are gone.

    They finish the jobs that they run. Those that start later are not stopped. A job cannot wait
    for its own worker to stop: there it takes --now or --timeout.
    """
    from queuectl.pool import stop as stop_workers

    store = app.open(create=True)
    if "QUEUECTL_JOB_ID" in os.environ and not now and timeout_seconds is None:
        from queuectl.cli.inside import refuse_inside

        refuse_inside(store, "and its worker would wait for its end: give --now or --timeout")
    names = stop_workers(
        store,
        now=now,
        timeout_seconds=timeout_seconds,
        slow=lambda workers: click.echo(_slow_text(workers, now=now), err=True),
    )
    if not names:
        click.echo("no workers are running", err=True)
    else:
        workers = "1 worker has" if len(names) == 1 else f"{len(names)} workers have"
        click.echo(f"{workers} stopped: {printable(', '.join(names))}", err=True)


def _slow_text(workers: "Sequence[WorkerRecord]", *, now: bool) -> str:
    """Return which workers are waited for, and what they do."""
    shown = sorted(workers, key=lambda each: each.name)[:_WORKERS_SHOWN]
    names = [
        f"{each.name} (process {each.pid}{f', job {each.job}' if each.job else ''})"
        for each in shown
    ]
    more = f" and {len(workers) - len(shown)} more" if len(workers) > len(shown) else ""
    helps = "" if now else "; 'queuectl worker stop --now' ends their commands"
    return f"waiting for {printable(', '.join(names))}{more}{helps}"


@worker.command(
    "list", epilog=examples("queuectl worker list", "queuectl worker list --json | jq '.[].pid'")
)
@json_option
@pass_app
def list_workers(app: App, *, as_json: bool) -> None:
    """List the live workers.

    SINCE is since when a worker runs its job, or is idle.
    """
    workers = sorted(app.open().workers(), key=lambda each: each.name)
    if as_json:
        echo_json(
            [
                {
                    "name": each.name,
                    "pid": each.pid,
                    "host": each.host,
                    "job": each.job,
                    "attempt": each.attempt,
                    "since": format_instant(each.since),
                }
                for each in workers
            ]
        )
        return
    now = utc_now()
    echo_table(
        [
            (
                each.name,
                each.pid,
                each.host,
                each.job,
                each.attempt,
                format_ago((now - each.since).total_seconds()),
            )
            for each in workers
        ],
        ["NAME", "PID", "HOST", "JOB", "ATTEMPT", "SINCE"],
        empty="no workers are running",
    )
