"""Send finished jobs back to pending/, or under a parent that they wait for (rule 7)."""

from collections.abc import Callable, Collection
from datetime import datetime

from queuectl.errors import JobNotFound, WrongState
from queuectl.job import Job, State
from queuectl.policy import retried, waits_for, without_missing_parents
from queuectl.store import files
from queuectl.store.core import Core
from queuectl.store.dependencies import Dependencies
from queuectl.store.files import store_errors


class Retrier:
    """The way of finished jobs back into one store, under pending.lock."""

    def __init__(self, core: Core, dependencies: Callable[[], Dependencies]) -> None:
        self._core = core
        self._dir = core.directory
        self._documents = core.documents
        self._get_dependencies = dependencies

    def retry(self, job_id: str, states: Collection[State], now: datetime) -> Job:
        """Send a job of one of the states back to pending; see Store.retry."""
        with self._core.lock.held():
            located = self._core.lookup.locate(job_id)
            if located is None:
                raise JobNotFound(f"no such job: {job_id}")
            state, name = located
            if state not in states:
                raise WrongState(f"job {job_id} is {state}, not {', '.join(states)}")
            with self._documents.locked(state, name) as fd:
                if fd is None:
                    raise WrongState(f"job {job_id} is being changed by somebody else; try again")
                job = self._documents.read(state, name, job_id)
                # RACE: somebody, who takes no lock, has removed it; see
                # test_retry_of_a_job_that_a_hand_removes_is_refused.
                if job is None:
                    raise JobNotFound(f"no such job: {job_id}")
                job = retried(job, now)
                # Durable where it is before it moves on: else a power failure could undo the first
                # move and keep the second, and leave the job in two places.
                self._dir.make_durable(state)
                if job.after or job.after_any:
                    return self._retry_dependent(state, name, job)
                with files.closing(self._documents.record(state, name, job)):
                    self._documents.move_back(state, name, job)
        return job

    def _retry_dependent(self, state: State, name: str, job: Job) -> Job:
        """Send a locked, finished job back to pending/, or under a parent; return it as it is then.

        It forgets parents that are gone: they may have been purged since the job ended.
        """
        dependencies = self._get_dependencies()
        found = self._core.lookup.states_of(job.parents)
        job = without_missing_parents(job, found)
        parent = waits_for(job, found.get)
        if parent is not None:
            job = job._replace(state=State.BLOCKED)
        with files.closing(self._documents.record(state, name, job)):
            if parent is None:
                self._documents.move_back(state, name, job)
                return job
            with store_errors(f"{self._dir.location}/{state}/{name} cannot be moved to blocked"):
                dependencies.put(state, name, job.id, parent)
                dependencies.sync({parent})
        dependencies.look_again({job.id: parent}, found)
        return job
