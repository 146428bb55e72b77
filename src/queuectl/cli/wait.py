"""Wait for jobs to end, and end as they did."""

import os

import click

from queuectl.cli.common import DURATION, App, complete_ids, examples, load_all, pass_app
from queuectl.cli.notices import Notices
from queuectl.cli.show import outcome_text
from queuectl.errors import TimeoutExpired
from queuectl.job import Job, Outcome, State

_TIMED_OUT = 124  # as timeout(1) does
_NOT_STARTED = 126  # as a shell does
_SIGNALLED = 128  # and the signal's number, as a shell does
_FAILED = 1
_IDS_SHOWN = 10


@click.command(
    epilog=examples(
        "queuectl wait sleepy-job && echo done",
        "queuectl wait --any build-linux build-macos --timeout 10m",
    )
)
@click.argument("job_ids", metavar="ID...", nargs=-1, required=True, shell_complete=complete_ids())
@click.option("--any", "any_of_them", is_flag=True, help="Wait for the first of them to end.")
@click.option(
    "--timeout",
    "timeout_seconds",
    type=DURATION,
    metavar="DURATION",
    help="Wait so long at most, then end with code 75.",
)
@click.option("--quiet", is_flag=True, help="Do not say what is waited for.")
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

    The exit code is 0 where all completed, else that of the first of the IDs that failed: its
    command's own, 128+N for signal N, 124 where it timed out, 126 where it could not be started,
    127 where the command was not found, 1 where it was cancelled, or lost with its worker. With
    --any it is that of the first job to end.

    What keeps a job from ending is said once on stderr, and waiting goes on: there is no worker, it
    is due more than a minute ahead, or it waits for a job that is dead, cancelled or gone. The
    beginning of an ID is enough where no other ID starts with it.
    """
    load_all()
    store = app.open()
    chosen = tuple(dict.fromkeys(store.resolve(each).id for each in job_ids))
    if "QUEUECTL_JOB_ID" in os.environ:
        from queuectl.cli.inside import refuse_to_wait_for_itself

        refuse_to_wait_for_itself(store, chosen, for_all=not any_of_them)
    ended: dict[str, Job] = {}
    looked = None if quiet else Notices(store).look
    for job in store.ends(chosen, timeout_seconds, looked):
        ended[job.id] = job
        if any_of_them:
            break
    waiting = [job_id for job_id in chosen if job_id not in ended]
    if waiting and not (any_of_them and ended):
        shown = ", ".join(waiting[:_IDS_SHOWN])
        more = f" and {len(waiting) - _IDS_SHOWN} more" if len(waiting) > _IDS_SHOWN else ""
        raise TimeoutExpired(f"not ended yet: {shown}{more}; wait longer, or see 'queuectl status'")
    for job_id in chosen:
        if job_id in ended and (code := _exit_code(ended[job_id])):
            # A command's own code may be one of ours: this tells whose it is.
            click.echo(_told(ended[job_id]), err=True)
            ctx.exit(code)


def _exit_code(job: Job) -> int:
    """Return how a job ended as a shell would tell it; 0 where it completed."""
    if job.state is State.COMPLETED:
        return 0
    if job.state is State.CANCELLED or not job.history:
        return _FAILED
    last = job.history[-1]
    if last.outcome is Outcome.TIMED_OUT:
        return _TIMED_OUT
    if last.outcome is Outcome.NOT_STARTED:
        return _NOT_STARTED
    if last.signal is not None:
        return _SIGNALLED + last.signal
    return last.exit_code or _FAILED


def _told(job: Job) -> str:
    if job.state is State.CANCELLED or not job.history:
        return f"{job.id} is {job.state}"
    return f"{job.id} is {job.state}: {outcome_text(job.history[-1])}"
