"""The protocol of a store: what it must do, whatever it is made of.

Everything above speaks to this protocol and sees no path, file name, lock or SQL. A claim is
exclusive as long as its worker, or the command that the worker started, lives: the store knows by
itself when both are gone (by a lock of the kernel, or by a connection).
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from queuectl.config import Settings
from queuectl.job import Attempt, Job, Outcome, State


class Entry(NamedTuple):
    """What a store knows of a job without reading its document.

    ``changed_at`` is when it came to its state (None if that is not known cheaply);
    ``run_at`` and ``priority`` are those of a pending job; ``attempt`` that of one in progress;
    ``parent`` is a job that a blocked one waits for, and ``parent_state`` how that has ended.
    ``token`` is what the store itself needs to find the document again.
    """

    id: str
    state: State
    priority: int | None = None
    run_at: datetime | None = None
    attempt: int | None = None
    parent: str | None = None
    parent_state: State | None = None
    changed_at: datetime | None = None
    token: str = ""


class Counts(NamedTuple):
    """How many jobs are in each state; the instants are of pending jobs, None if there are none.

    ``oldest_due`` is when the due job that has waited longest became due, ``next_due`` when the
    first job that is not due yet will be.
    """

    by_state: dict[State, int]
    due: int = 0
    oldest_due: datetime | None = None
    next_due: datetime | None = None
    unreadable: int = 0


class ParentNames:
    """The ids that blocked jobs wait for, or have waited for, as far as they were read.

    No id is removed: a parent may stay for the sake of a job that was released meanwhile. The rest
    says what the store need not read again: the directories that were read, by the time of their
    last change, and a hash for each document.
    """

    def __init__(self) -> None:
        """Start with nothing."""
        self.ids: set[str] = set()
        self.directories: dict[str, tuple[int, int]] = {}
        self.documents: set[int] = set()


class WorkerRecord(NamedTuple):
    """A live worker: its name, and what it has been running since when (job None: it is idle).

    ``settled`` counts the attempts that it has settled.
    ``pool`` is the same for all workers of a pool, and for no others.
    """

    name: str
    pid: int
    host: str
    since: datetime
    job: str | None = None
    attempt: int | None = None
    settled: int = 0
    pool: str = ""


# The lengths, in seconds, up to which attempts are counted apart.
LENGTH_BOUNDS = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0)


class Recent(NamedTuple):
    """Counts of attempts that ended lately, in slots of ten seconds, the oldest first.

    ``slot`` is the number of the newest; the first began in 1970. A reader leaves out slots
    that are too old by its own clock, so that counts expire although nobody writes.
    """

    slot: int = 0
    counts: tuple[int, ...] = (0,) * 7


class Tally(NamedTuple):
    """Counts of attempts by outcome and by length.

    An outcome that is only a text is one that a newer version knows.
    ``by_length`` holds, for each of LENGTH_BOUNDS, the attempts that took that long at most and
    longer than the bound before, and last the attempts that took longer; ``seconds`` is the sum.
    """

    by_outcome: Mapping[Outcome | str, int] = MappingProxyType({})
    by_length: tuple[int, ...] = (0,) * (len(LENGTH_BOUNDS) + 1)
    seconds: float = 0.0
    recent: Recent = Recent()


@dataclass(slots=True, kw_only=True, eq=False)
class Claim:
    """A job that one worker may run, until it is settled or given back.

    ``pass_fds`` are descriptors, as (source, number in the command), that the command inherits, so
    that the claim outlives its worker for as long as the command runs. ``worker`` claimed it; it is
    empty for the only worker of a process.
    """

    worker: str = ""
    job: Job
    attempt: int
    started_at: datetime
    pass_fds: tuple[tuple[int, int], ...] = ()


class Recovered(NamedTuple):
    """One job that belonged to nobody, as it is after its recovery."""

    job: Job
    attempt: int
    lost: bool


class RecoveryReport(NamedTuple):
    """The result of a recovery; ``running`` counts the claims that somebody holds.

    ``unowned`` counts claims held by a command whose worker is gone, and claims that could not be
    settled, for the reasons in ``problems``. ``overdue`` are attempts, by job and number, whose
    commands outlived their timeout as well and got SIGTERM just now.
    """

    recovered: Sequence[Recovered] = ()
    running: int = 0
    unowned: int = 0
    overdue: Sequence[tuple[str, int]] = ()
    problems: Sequence[str] = ()


Slow = Callable[[str, WorkerRecord | None], object]


class StopRequest(Protocol):
    """A request to stop the workers; two requests are never equal."""

    @property
    def now(self) -> bool:
        """Return whether running commands are to be ended and given back."""


# What follows an attempt that was cut off: takes the job and the attempt, returns the new job.
Decide = Callable[[Job, Attempt], Job]
Progress = Callable[[int], None]
Looked = Callable[[Collection[Entry]], object]


class Settlement(Protocol):
    """Claims that are being settled: begun, made durable, finished.

    ``gone`` are those whose jobs somebody has moved away meanwhile; how they ended is not recorded.
    """

    gone: list[Claim]

    @property
    def left(self) -> Collection[Claim]:
        """Return the claims that are still held; after finish, the ones without room."""

    def sync(self) -> None:
        """Make what was recorded durable; may take long, and may be called in another thread."""

    def finish(self) -> None:
        """Move the jobs to their states and free their claims.

        Raises: StoreError if they could not be recorded; settling them again is safe.
        """


class Adder(Protocol):
    """As much of a store as a plain enqueue needs."""

    def close(self) -> None:
        """Free what the store holds open."""

    def settings(self) -> Settings:
        """Return the settings, defaults included. Raises: ConfigError that names what is wrong."""

    def make(self) -> None:
        """Make what is missing of the store, as opening it with ``create`` does.

        All of it, if it was removed after it was opened: a pipe of jobs may be open for long.
        """

    def add_new(self, jobs: Collection[Job], progress: Progress | None = None) -> list[str]:
        """Add jobs that wait for no other and whose ids nobody chose; see Store.add."""


class Store(Adder, Protocol):
    """A place that keeps jobs: each is in one state at every instant, and none is ever lost."""

    location: str
    """What --store and QUEUECTL_STORE take to reach this store; also its name in messages."""

    def close(self) -> None:
        """Free what the store holds open."""

    # --- what people and scripts do ---

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

    def entries(self, state: State, now: datetime, limit: int | None = None) -> list[Entry]:
        """Return what is known of the jobs in a state without opening a document, in order.

        Pending jobs come in the order of running: due jobs by priority, due time and id,
        then the rest by due time, priority and id; jobs of any other state come newest first.
        With a ``limit`` only that many are returned, in memory that depends on the limit alone.
        """

    def all_entries(self, state: State, now: datetime) -> Collection[Entry]:
        """Return the same of all jobs in a state, in memory of some 20 bytes for each.

        They are found now, and the entries made each time that they are iterated over.
        """

    def read(self, entry: Entry) -> Job | None:
        """Return the job of an entry, None if it has moved on. Raises: BadDocument."""

    def find(self, job_ids: Collection[str]) -> dict[str, Entry]:
        """Return where jobs are, by their ids, opening none; one that does not exist is left out.

        Their ``changed_at`` is None.
        """

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

    def ids(self, state: State, prefix: str = "") -> Iterator[str]:
        """Stream the ids of the jobs in a state that start with ``prefix``, in no order."""

    def counts(self, now: datetime) -> Counts:
        """Count the jobs, opening no document."""

    def tally(self) -> Tally:
        """Count the attempts that workers have settled since the store was made.

        Never decreases, except by what a power failure takes, and opens no document of a job.
        """

    def ended_lately(self) -> int:
        """Return how many attempts have ended in the last minute, whoever ran them."""

    def retry(self, job_id: str, states: Collection[State], now: datetime) -> Job:
        """Send a job of one of the states back to pending: due now, attempts 0, history kept.

        Raises: JobNotFound; WrongState that says in which state it is.
        """

    def cancel(
        self, job_ids: Sequence[str], slow: "Slow | None" = None
    ) -> Iterator[tuple[str, State | None]]:
        """Cancel jobs, waiting ones first; yield each with the state in which it ended.

        A job that waits does not run any more; the attempt of one in progress is ended, as its
        worker ends a command, before it is yielded. One that has completed or is dead stays as it
        is; one that is deleted meanwhile is yielded with None. ``slow`` is called once with a job
        that does not end soon, and its worker if that can be asked.
        Raises: JobNotFound before the first is cancelled.
        """

    def look_at_parents(self, seen: "ParentNames") -> Iterator[None]:
        """Learn which jobs the blocked ones wait for, a step for each document that is read.

        What ``seen`` holds from the last look is read again only if it has changed.
        """

    def parents_held(self, seen: "ParentNames") -> AbstractContextManager[Collection[str]]:
        """Read once more, and keep jobs from beginning to wait for others while the block runs.

        The block gets the ids that are waited for; no purge deletes those jobs.
        """

    def finished(self, state: State) -> Iterator[Entry]:
        """Stream what is known of the jobs in a finished state, in no order, opening none."""

    def hold(self, job_id: str) -> AbstractContextManager[bool]:
        """Keep a job finished while the block runs; the block gets whether that is so."""

    def hold_unused(self, ids: AbstractSet[str]) -> AbstractContextManager[Collection[str]]:
        """Pass the ids that no job has to the block, and keep them free meanwhile.

        A job that was set aside because it cannot be read still has its id.
        """

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

    def read_config(self) -> dict[str, Any]:
        """Return what was set, by key, empty if nothing was. Raises: ConfigError."""

    def change_config(self, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Apply a change to what was set, with no other change in between."""

    def settings(self) -> Settings:
        """Return the settings, defaults included. Raises: ConfigError that names what is wrong."""

    # --- what workers do ---

    # Called with what was set aside, and why, after each document that cannot be read.
    on_set_aside: Callable[[str], None] | None

    def check_pool(self) -> None:
        """Raise StoreError if this process lacks what the workers of a pool need."""

    def reserve_pool(self) -> bool:
        """Reserve the store for a pool that is to be the only one; False if another one runs.

        It is reserved as long as this process or one forked from it lives. Pools that do not ask
        may still start later.
        """

    def prepare_pool(self) -> None:
        """Set up what the workers share that are about to be forked from this process."""

    def is_in_place(self) -> bool:
        """Return whether this store is the one at its path: nobody deleted or replaced it."""

    def register(self, name: str, now: datetime) -> None:
        """Record a live worker of this process, until that ends or the worker unregisters.

        One that is alone in its process need not be named below. Raises: NameTaken.
        """

    def unregister(self, *workers: str) -> None:
        """Remove the records of workers of this process, if they have one."""

    def workers(self) -> list[WorkerRecord]:
        """Return the live workers, those of other pools included."""

    def tidy(self) -> None:
        """Remove what killed processes left behind and nobody needs. Raises: StoreError."""

    def purge_turn(self, period_seconds: float) -> AbstractContextManager[bool]:
        """Take the turn to purge, once in a period for all; the block gets whether it was free.

        A block that is left by an exception does not count as a purge.
        """

    def claim_each(self, now: datetime, workers: Sequence[str]) -> list[Claim]:
        """Take the first jobs that are due, one for each of the workers, in their order.

        No other worker can take them then. Jobs come by priority, then due time, then id; none if
        none is due. Fewer jobs than workers do not mean that there are no more: the next call
        returns them, or raises what prevented it. A document that cannot be read is set aside.
        """

    def control_fd(self, worker: str = "") -> int | None:
        """Return the descriptor that is readable on requests to a worker, None if there is none.

        Then ``stop_level`` and ``cancel_requested`` are to be asked.
        """

    def cancel_requested(self, claim: Claim) -> bool:
        """Return whether the attempt of a claim is to be cancelled."""

    def begin_settle(self, settlements: Sequence[tuple[Claim, Job]]) -> "Settlement":
        """Record how claimed jobs ended; finishing the settlement moves each to its state.

        One settlement is finished before the next is begun. Claims for which there is no room
        beside the others are left for the next one.
        Raises: StoreError if none can be recorded; the claims are still held then, and settling
        them again is safe.
        """

    def settle(self, settlements: Sequence[tuple[Claim, Job]]) -> None:
        """Settle claimed jobs at once, waiting for the disk. Raises: as begin_settle and finish.

        All of them, or StoreError.
        """

    def give_back(self, claim: Claim, due: datetime | None = None) -> None:
        """Put a claimed job back as it was, the attempt not counted, and free the claim.

        It is due as before, or at ``due``. A job that somebody has moved away stays where it is.
        Raises: StoreError; trying again is safe.
        """

    def recover(self, decide: Decide, *, only_lost: bool = False) -> RecoveryReport:
        """Settle the claims whose worker and command are gone.

        An attempt that was recorded is moved on; one that was cut off is lost, and ``decide`` says
        what follows. A command that outlived its worker is ended when its timeout is over. A claim
        that cannot be settled does not keep the others from it.
        With ``only_lost`` claims that somebody holds are left alone: one process of a pool looks
        after those.
        """

    def release_blocked(self) -> bool:
        """Release blocked jobs whose parents' ends were missed; return whether any is blocked.

        Needed when the process that moved a parent was killed before it released its children.
        Raises: StoreError, UnsafeStore, ConfigError.
        """

    def running(self) -> bool:
        """Return whether a worker of this pool runs a job, a killed worker's command included.

        From now on the end of a job in progress, of any pool, is an arrival.
        """

    def next_due(self) -> datetime | None:
        """Return when to claim again though nothing arrives, None for never.

        Called after a claim found nothing.
        """

    def arrivals_fd(self) -> int | None:
        """Return a descriptor that is readable when jobs may have arrived, None if there is none.

        Without one the caller asks again after ``poll_seconds``.
        """

    def arrivals_heard(self) -> int:
        """Return a number that changes when a claim of this process has read arrivals.

        The descriptor is readable once: other workers of the process then ask again, too.
        """

    poll_seconds: float

    def request_stop(self, *, now: bool) -> StopRequest:
        """Ask all workers that are live at this moment to stop."""

    def stop_request(self) -> StopRequest | None:
        """Return the last request to stop, however old."""

    def stop_level(self, worker: str = "") -> int:
        """Return the request to stop that a worker got directly, not by its supervisor.

        0 is none, 1 a request to take no new job, 2 one to stop now.
        """

    def stop_fd(self) -> int | None:
        """Return a descriptor that is readable when a stop may have been requested, or None."""
