"""Run finished jobs again."""

from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter

import click

from queuectl.cli.app import App, examples, pass_app
from queuectl.cli.params import ids_argument, whole_ids
from queuectl.errors import JobNotFound, WrongState
from queuectl.job import State
from queuectl.store.protocol import Store
from queuectl.store.values import Entry

_STATES = (State.COMPLETED, State.CANCELLED)


@click.command(epilog=examples("queuectl retry backup-7", "queuectl retry report-1 report-2"))
@ids_argument(*_STATES)
@pass_app
def retry(app: App, *, job_ids: tuple[str, ...]) -> None:
    """Run completed or cancelled jobs again.

    Prints their ids; a job comes after those of the IDs that it waits for. Its attempts are 0
    again, its history is kept. If one of the IDs is not a completed or cancelled job, nothing is
    changed. For dead jobs, use 'queuectl dlq retry'.
    """
    store = app.open()
    found = store.find(job_ids)
    with whole_ids(store, job_ids):
        for job_id in job_ids:
            if job_id not in found:
                raise JobNotFound(f"no such job: {job_id}")
            state = found[job_id].state
            if state is State.DEAD:
                raise WrongState(f"job {job_id} is dead; use 'queuectl dlq retry {job_id}'")
            if state not in _STATES:
                raise WrongState(f"job {job_id} is {state} and has not ended yet")
    for job_id in _parents_first(store, {job_id: found[job_id] for job_id in job_ids}):
        click.echo(store.retry(job_id, _STATES, store.now()).id)


def _parents_first(store: Store, found: Mapping[str, Entry]) -> Iterable[str]:
    """Return the ids in an order in which no job runs before one that it waits for."""
    order: TopologicalSorter[str] = TopologicalSorter()
    for job_id, entry in found.items():
        job = store.read(entry)
        order.add(job_id, *(each for each in (job.parents if job else ()) if each in found))
    try:
        return list(order.static_order())
    except CycleError:  # documents that were edited by hand
        return found
