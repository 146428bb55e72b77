"""Add jobs that wait for others, end the others, and look where the jobs are."""

from tests.jobs import (
    claimed,
    ended,
    settle,
)

from queuectl.job import Job, Outcome
from queuectl.store.protocol import Store


def add(store: Store, *jobs: Job) -> None:
    """Add jobs whose ids were chosen."""
    store.add(jobs, chosen=[job.id for job in jobs])


def end(store: Store, outcome: Outcome = Outcome.SUCCEEDED) -> str:
    """Run the next job, which must be there, and return its id."""
    claim = claimed(store)
    settle(store, [ended(claim, outcome)])
    return claim.job.id


def where(store: Store, *ids: str) -> list[str]:
    """Return the states of jobs."""
    return [store.get(job_id).state for job_id in ids]
