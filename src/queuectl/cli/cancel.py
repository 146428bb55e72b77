"""Cancel jobs."""

import click

from queuectl.cli.app import App, examples, pass_app
from queuectl.cli.params import ids_argument, whole_ids
from queuectl.errors import JobNotFound, QueuectlError, WrongState
from queuectl.job import State
from queuectl.store.values import WorkerRecord
from queuectl.text import printable


@click.command(epilog=examples("queuectl cancel old-report", "queuectl cancel build-1 build-2"))
@ids_argument(State.PROCESSING, State.PENDING, State.BLOCKED)
@pass_app
def cancel(app: App, *, job_ids: tuple[str, ...]) -> None:
    """Cancel waiting or running jobs, and wait until they are cancelled.

    Prints each cancelled id; waiting jobs are cancelled first. The whole process group of a running
    command gets SIGTERM, then SIGKILL after the setting kill-grace. A cancelled job is not retried.

    If one of the IDs does not exist, nothing is changed. A job that is completed or dead cannot be
    cancelled, which is an error, but the others are.
    """
    store = app.open()
    failure: QueuectlError | None = None
    with whole_ids(store, job_ids):
        for job_id, state in store.cancel(job_ids, _report_slow):
            if state is State.CANCELLED:
                click.echo(job_id)
            elif failure is None and state is None:
                failure = JobNotFound(f"job {job_id} was deleted before it could be cancelled")
            elif failure is None:
                failure = WrongState(f"job {job_id} is {state} and cannot be cancelled")
    if failure is not None:
        raise failure


def _report_slow(job_id: str, worker: WorkerRecord | None) -> None:
    """Report on stderr what is waited for when a command does not end soon."""
    asked = "no worker can end it"
    if worker is not None:
        asked = f"worker {worker.name} (process {worker.pid}) was asked to end it"
    click.echo(printable(f"waiting for job {job_id} to end: {asked}"), err=True)
