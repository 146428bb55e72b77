"""Run finished jobs again."""

from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter

import click

from queuectl.cli.common import App, complete_ids, echo, examples, pass_app
from queuectl.clock import utc_now
from queuectl.errors import JobNotFound, WrongState
from queuectl.job import State
from queuectl.store.base import Entry, Store

_STATES = (State.COMPLETED, State.CANCELLED)


@click.command(epilog=examples("queuectl retry backup-7", "queuectl retry report-1 report-2"))
@click.argument(
    "job_ids", metavar="ID...", nargs=-1, required=True, shell_complete=complete_ids(*_STATES)
)
@pass_app
def retry(app: App, *, job_ids: tuple[str, ...]) -> None:
    """Run completed or cancelled jobs again.

    Prints their ids, the jobs that others of them wait for first. Their attempts are 0 again, their
    history is kept. Where one of the IDs is not that of such a job, nothing is changed. Dead jobs
    are retried by 'queuectl dlq retry'.
    """
    store = app.open()
    chosen = tuple(dict.fromkeys(job_ids))
    found = store.find(chosen)
    for job_id in chosen:
        _check(job_id, found.get(job_id))
    for job_id in _parents_first(store, {job_id: found[job_id] for job_id in chosen}):
        echo(store.retry(job_id, _STATES, utc_now()).id)


def _parents_first(store: Store, found: Mapping[str, Entry]) -> Iterable[str]:
    """Return the ids in an order in which no job runs before one that it waits for."""
    order: TopologicalSorter[str] = TopologicalSorter()
    for job_id, entry in found.items():
        job = store.read(entry)
        order.add(job_id, *(each for each in (job.parents if job else ()) if each in found))
    try:
        return list(order.static_order())
    except CycleError:  # made by a hand
        return found


def _check(job_id: str, entry: Entry | None) -> None:
    if entry is None:
        raise JobNotFound(f"no such job: {job_id}")
    if entry.state is State.DEAD:
        raise WrongState(f"job {job_id} is dead; use 'queuectl dlq retry {job_id}'")
    if entry.state not in _STATES:
        raise WrongState(f"job {job_id} is {entry.state}, and has not ended yet")
