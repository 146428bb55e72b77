"""Wait for jobs to end, and end as they did."""

import click

from queuectl.cli.app import App, examples, load_all, pass_app
from queuectl.cli.output import first_few
from queuectl.cli.params import give_up_option, ids_argument
from queuectl.cli.waiting import Notices, refuse_to_wait_for_itself
from queuectl.errors import TimeoutExpired
from queuectl.job import Job, State, describe, shell_code


@click.command(
    epilog=examples(
        "queuectl wait sleepy-job && echo done",
        "queuectl wait --any build-linux build-macos --timeout 10m",
    )
)
@ids_argument()
@click.option("--any", "any_of_them", is_flag=True, help="Wait for the first of them to end.")
@give_up_option
@click.option("--quiet", is_flag=True, help="Do not report what the jobs wait for.")
@pass_app
@click.pass_context
def wait(
    ctx: click.Context,
    app: App,
    *,
    job_ids: tuple[str, ...],
    any_of_them: bool,
    timeout_seconds: float | None,
    quiet: bool,
) -> None:
    """Wait for jobs to end, through all of their attempts.

    The exit code is 0 if all completed, else that of the first of the IDs that failed: the exit
    code of its command, 128+N for signal N, 124 if it timed out, 126 if it could not be started,
    127 if its command was not found, 1 if it was cancelled or lost with its worker. With --any it
    is that of the first job to end.

    Whatever keeps a job from ending is reported once on stderr, and the wait continues: no worker
    is running, the job is due more than a minute ahead, or it waits for a job that is dead,
    cancelled or gone.

    The beginning of an ID is enough if no other ID starts with it.
    """
    load_all()
    store = app.open()
    chosen = tuple(dict.fromkeys(store.resolve(each).id for each in job_ids))
    refuse_to_wait_for_itself(store, chosen, for_all=not any_of_them)
    ended: dict[str, Job] = {}
    looked = None if quiet else Notices(store).look
    for job in store.ends(chosen, timeout_seconds, looked):
        ended[job.id] = job
        if any_of_them:
            break
    waiting = [job_id for job_id in chosen if job_id not in ended]
    if waiting and not (any_of_them and ended):
        raise TimeoutExpired(
            f"not ended yet: {first_few(waiting)}; wait longer, or see 'queuectl status'"
        )
    for job_id in chosen:
        if job_id in ended and ended[job_id].state is not State.COMPLETED:
            code, text = _failure(ended[job_id])
            # The code of a command may be one of queuectl's own: this line says whose it is.
            click.echo(text, err=True)
            ctx.exit(code)


def _failure(job: Job) -> tuple[int, str]:
    """Return the exit code that a shell would report for a job that failed, and how it ended."""
    text = f"{job.id} is {job.state}"
    if job.state is State.CANCELLED or not job.history:
        return 1, text
    return shell_code(job.history[-1]) or 1, f"{text}: {describe(job.history[-1])}"
