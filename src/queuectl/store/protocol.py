"""The protocol of a store: what it must do, whatever it is made of.

Everything above speaks to this protocol and sees no path, file name, lock or SQL. A ``Store`` is
what people and scripts use; its parts, one for each role, are what a purge, a pool and the workers
of a process use (the last two are in worker_protocol).
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Protocol

from queuectl.config import Settings
from queuectl.job import Job, State
from queuectl.store.values import (
    Counts,
    Entry,
    Looked,
    Progress,
    Slow,
    Tally,
    WorkerRecord,
)
from queuectl.store.worker_protocol import Pool, Queue


class Adder(Protocol):
    """As much of a store as a plain enqueue needs."""

    def close(self) -> None:
        """Free what the store holds open."""

    def now(self) -> datetime:
        """Return the time by the clock that decides which jobs are due."""

    def settings(self) -> Settings:
        """Return the settings, defaults included. Raises: ConfigError that names what is wrong."""

    def make(self) -> None:
        """Make what is missing of the store, as opening it with ``create`` does.

        All of it, if it was removed after it was opened: a pipe of jobs may be open for long.
        """

    def add(self, jobs: Collection[Job], *, progress: Progress | None = None) -> list[str]:
        """Add jobs that wait for no other and whose ids nobody chose; see Store.add."""


class Store(Adder, Protocol):
    """A place that keeps jobs: each is in one state at every instant, and none is ever lost."""

    location: str
    """What --store and QUEUECTL_STORE take to reach this store; also its name in messages."""
    log_directory: str
    """Where this host keeps the logs of the store's jobs; worker.log is beside it."""
    set_aside_in: str
    """Where documents that cannot be read are set aside, for messages."""

    @property
    def config(self) -> "Configuration":
        """Return what people have set."""

    @property
    def workers(self) -> "Workers":
        """Return the workers of all pools."""

    @property
    def stop_requests(self) -> "StopRequests":
        """Return the requests to stop the workers."""

    @property
    def purging(self) -> "Purging":
        """Return the part that deletes finished jobs."""

    @property
    def pool(self) -> Pool:
        """Return the part that a pool of workers needs as a whole."""

    @property
    def queue(self) -> Queue:
        """Return the part that the workers of this process need."""

    def add(
        self,
        jobs: Collection[Job],
        *,
        chosen: Collection[str] = (),
        skip_existing: bool = False,
        progress: Progress | None = None,
    ) -> list[str]:
        """Make new jobs durable, then visible in their order; return their ids.

        ``chosen`` are the ids that a person chose, which must not exist in any state; existing
        ones are skipped with ``skip_existing``. ``progress`` gets how many more are done.
        A job that waits for others is blocked until they have ended; it may wait for any that
        exists, and for any of the new ones.
        Raises: DuplicateId, UnknownParent, CircularWait before any job is visible; StoreError on a
        full disk.
        """

    def get(self, job_id: str) -> Job:
        """Return a job, its ``state`` being where it is. Raises: JobNotFound, BadDocument."""

    def resolve(self, prefix: str) -> Entry:
        """Return where the job is whose id is ``prefix`` or, alone, starts with it.

        Its ``changed_at`` is None.
        Raises: JobNotFound; AmbiguousPrefix that lists candidates.
        """

    def find(self, job_ids: Collection[str]) -> dict[str, Entry]:
        """Return where jobs are, by their ids, opening none; one that does not exist is left out.

        Their ``changed_at`` is None.
        """

    def entries(self, state: State, now: datetime, limit: int | None = None) -> Collection[Entry]:
        """Return what is known of the jobs in a state without opening a document, in order.

        Pending jobs come in the order of running: due jobs by priority, due time and id,
        then the rest by due time, priority and id; jobs of any other state come newest first.
        With a ``limit`` only that many are returned, in memory that depends on the limit alone;
        else all, in some 20 bytes for each: they are found now, and the entries made each time
        that they are iterated over; some may have moved on then, so that ``len`` is a bound.
        """

    def read(self, entry: Entry) -> Job | None:
        """Return the job of an entry, None if it has moved on. Raises: BadDocument."""

    def ids(self, state: State, prefix: str = "") -> Iterator[str]:
        """Stream the ids of the jobs in a state that start with ``prefix``, in no order."""

    def counts(self, now: datetime) -> Counts:
        """Count the jobs, opening no document."""

    def ends(
        self,
        job_ids: Collection[str],
        timeout_seconds: float | None,
        looked: Looked | None = None,
    ) -> Iterator[Job]:
        """Yield each of the jobs when it has ended, until all have or the timeout is over.

        Those that have ended already come first, in the order of their ends. One that failed and is
        to run again has not ended. ``looked`` is called with where the others are, now and then
        while they are waited for. Raises: JobNotFound if one of them does not exist (any more).
        """

    def retry(self, job_id: str, states: Collection[State], now: datetime) -> Job:
        """Send a job of one of the states back to pending: due now, attempts 0, history kept.

        Raises: JobNotFound; WrongState that says in which state it is.
        """

    def cancel(
        self, job_ids: Sequence[str], slow: Slow | None = None
    ) -> Iterator[tuple[str, State | None]]:
        """Cancel jobs, waiting ones first; yield each with the state in which it ended.

        A job that waits does not run any more; the attempt of one in progress is ended, as its
        worker ends a command, before it is yielded. One that has completed or is dead stays as it
        is; one that is deleted meanwhile is yielded with None. ``slow`` is called once with a job
        that does not end soon, and its worker if that can be asked.
        Raises: JobNotFound before the first is cancelled.
        """


class Configuration(Protocol):
    """What people have set."""

    def read(self) -> dict[str, Any]:
        """Return what was set, by key, empty if nothing was. Raises: ConfigError."""

    def change(self, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Apply a change to what was set, with no other change in between."""


class Workers(Protocol):
    """The workers of all pools, and what they have done."""

    def live(self) -> list[WorkerRecord]:
        """Return the live workers, by name."""

    def tally(self) -> Tally:
        """Count the attempts that workers have settled since the store was made.

        Never decreases, except by what a power failure takes, and opens no document of a job.
        """

    def ended_lately(self) -> int:
        """Return how many attempts have ended in the last minute, whoever ran them."""


class StopRequest(Protocol):
    """A request to stop the workers; two requests are never equal."""

    @property
    def now(self) -> bool:
        """Return whether running commands are to be ended and given back."""


class StopRequests(Protocol):
    """The requests to stop the workers: people make them, and supervisors look for them."""

    def request(self, *, now: bool) -> StopRequest:
        """Ask all workers that are live at this moment to stop."""

    def last(self) -> StopRequest | None:
        """Return the last request, however old. Raises: StoreError."""

    def fd(self) -> int | None:
        """Return a descriptor that is readable when a request may have come, or None."""


class NamedParents(Protocol):
    """The jobs that blocked ones wait for, or have waited for, as far as they were read.

    None is removed: a parent may stay for the sake of a job that was released meanwhile.
    """

    @property
    def ids(self) -> AbstractSet[str]:
        """Return what was read so far."""

    def look(self) -> Iterator[None]:
        """Read what has changed since the last look, a step for each document that is read."""

    def held(self) -> AbstractContextManager[AbstractSet[str]]:
        """Look, and keep jobs from beginning to wait for others while the block runs.

        The block gets the ids that are waited for.
        """


class Purging(Protocol):
    """The deletion of finished jobs."""

    def finished(self, state: State) -> Iterator[Entry]:
        """Stream what is known of the jobs in a finished state, in no order, opening none."""

    def named_parents(self) -> NamedParents:
        """Return what knows which jobs blocked ones wait for; nothing is read yet."""

    def purge(
        self,
        job_id: str,
        state: State,
        *,
        forget: Callable[[Job], object] | None = None,
        unchanged_since: datetime | None = None,
    ) -> bool:
        """Delete a finished job; return False if it is not in that state (any more).

        ``forget`` deletes what else there is of it, before its id can be used again. With
        ``unchanged_since`` a job that came there later stays. Raises: BadDocument.
        """

    def hold(self, job_id: str) -> AbstractContextManager[bool]:
        """Keep a job finished while the block runs; the block gets whether that is so."""

    def hold_unused(self, ids: AbstractSet[str]) -> AbstractContextManager[Collection[str]]:
        """Pass the ids that no job has to the block, and keep them free meanwhile.

        A job that was set aside because it cannot be read still has its id.
        """

    def turn(self, period_seconds: float) -> AbstractContextManager[bool]:
        """Take the turn to purge, once in a period for all; the block gets whether it was free.

        A block that is left by an exception does not count as a purge.
        """
