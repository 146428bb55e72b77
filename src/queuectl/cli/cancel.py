"""Cancel jobs."""

import click

from queuectl.cli.common import App, complete_ids, echo, examples, pass_app
from queuectl.errors import JobNotFound, QueuectlError, WrongState
from queuectl.job import State
from queuectl.store.base import WorkerRecord
from queuectl.text import printable


@click.command(epilog=examples("queuectl cancel old-report", "queuectl cancel build-1 build-2"))
@click.argument(
    "job_ids",
    metavar="ID...",
    nargs=-1,
    required=True,
    shell_complete=complete_ids(State.PROCESSING, State.PENDING, State.BLOCKED),
)
@pass_app
def cancel(app: App, *, job_ids: tuple[str, ...]) -> None:
    """Cancel jobs that wait or run, and wait until they are.

    Prints the ids of those that are cancelled, first those that wait. The command of a running job
    is ended with all of its process group: by SIGTERM, and by SIGKILL where it takes longer than
    the setting kill-grace. It is not retried. Where one of the IDs does not exist, nothing is
    changed; one that has completed or is dead is an error, and the others are cancelled.
    """
    failure: QueuectlError | None = None
    for job_id, state in app.open().cancel(tuple(dict.fromkeys(job_ids)), _say_slow):
        if state is State.CANCELLED:
            echo(job_id)
        elif failure is None:
            failure = _failure(job_id, state)
    if failure is not None:
        raise failure


def _say_slow(job_id: str, worker: WorkerRecord | None) -> None:
    """Say what is waited for where a command does not end soon."""
    who = "nobody can be asked to end it"
    if worker is not None:
        who = f"worker {worker.name} (process {worker.pid}) has been asked to end it"
    click.echo(printable(f"waiting for the end of job {job_id}: {who}"), err=True)


def _failure(job_id: str, state: State | None) -> QueuectlError:
    if state is None:
        return JobNotFound(f"job {job_id} was deleted before it could be cancelled")
    return WrongState(f"job {job_id} is {state} and cannot be cancelled any more")
