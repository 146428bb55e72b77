"""Start, stop and list workers."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from queuectl.cli.app import App, examples, load_all, pass_app
from queuectl.cli.output import counted, echo_json, echo_table, first_few, format_ago
from queuectl.cli.params import give_up_option, json_option, whole
from queuectl.clock import format_instant
from queuectl.text import printable

if TYPE_CHECKING:
    from queuectl.store.values import WorkerRecord

MAX_COUNT = 1000


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
    type=whole(1, MAX_COUNT),
    default=1,
    show_default=True,
    metavar="N",
    help=f"Number of workers, each running one job at a time; at most {MAX_COUNT}.",
)
@click.option(
    "--drain",
    is_flag=True,
    help="Exit with code 0 when no job is due and none of these workers runs one.",
)
@click.option(
    "--unless-running", is_flag=True, help="Exit with code 0 if workers are running already."
)
@click.option("--detach", is_flag=True, help="Run in the background.")
@click.option("--quiet", is_flag=True, help="Report errors only.")
@click.pass_context
def start(ctx: click.Context, /, *, count: int, **how: bool) -> None:
    """Start workers, in the foreground.

    Ctrl-C or SIGTERM stops them when their jobs have ended. A second one ends the commands and
    returns their jobs to the queue, without counting the attempt.
    """
    from queuectl.worker import run_pool

    load_all()
    ctx.exit(run_pool(ctx.ensure_object(App).location, count, **how))


@worker.command(epilog=examples("queuectl worker stop", "queuectl worker stop --now --timeout 30s"))
@click.option("--now", is_flag=True, help="End running commands; return their jobs to the queue.")
@give_up_option
@pass_app
def stop(app: App, *, now: bool, timeout_seconds: float | None) -> None:
    """Stop all workers, and wait until they are gone.

    Each worker finishes the job that it runs. Workers that are started later are not stopped.
    Inside of a job this takes --now or --timeout, since its worker waits for the job to end.
    """
    from queuectl.worker import stop_all

    store = app.open(create=True)
    if "QUEUECTL_JOB_ID" in os.environ and not now and timeout_seconds is None:
        from queuectl.cli.waiting import refuse_inside

        refuse_inside(store, "and its worker would wait for its end: give --now or --timeout")
    names = stop_all(
        store,
        now=now,
        timeout_seconds=timeout_seconds,
        on_slow=lambda workers: click.echo(_slow_text(workers, now=now), err=True),
    )
    if not names:
        click.echo("no workers are running", err=True)
    else:
        stopped = f"stopped {counted(len(names), 'worker')}: {', '.join(names)}"
        click.echo(printable(stopped), err=True)


def _slow_text(workers: "Sequence[WorkerRecord]", *, now: bool) -> str:
    names = [
        f"{each.name} (process {each.pid}{f', job {each.job}' if each.job else ''})"
        for each in sorted(workers, key=lambda each: each.name)
    ]
    hint = "" if now else "; 'queuectl worker stop --now' ends their commands"
    return f"waiting for {printable(first_few(names))}{hint}"


@worker.command(
    "list", epilog=examples("queuectl worker list", "queuectl worker list --json | jq '.[].pid'")
)
@json_option
@pass_app
def list_workers(app: App, *, as_json: bool) -> None:
    """List the running workers.

    SINCE is the time since a worker started its job or became idle.
    """
    store = app.open()
    workers = store.workers.live()
    now = store.now()
    rows = [
        {
            **{field: getattr(each, field) for field in ("name", "pid", "host", "job", "attempt")},
            "since": format_instant(each.since) if as_json else format_ago(now - each.since),
        }
        for each in workers
    ]
    if as_json:
        echo_json(rows)
        return
    headers = ["NAME", "PID", "HOST", "JOB", "ATTEMPT", "SINCE"]
    echo_table([tuple(row.values()) for row in rows], headers, empty="no workers are running")
