"""The part of the protocol of a store that pools and workers use.

A claim is exclusive as long as its worker, or the command that the worker started, lives: the store
knows by itself when both are gone.
"""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Protocol

from queuectl.job import Job
from queuectl.store.values import Decide, RecoveryReport


class Pool(Protocol):
    """What a pool of workers needs as a whole; its supervisor opens it before it forks."""

    def check(self) -> None:
        """Raise StoreError if this process lacks what the workers of a pool need."""

    def reserve(self) -> bool:
        """Reserve the store for a pool that is to be the only one; False if another one runs.

        It is reserved as long as this process or one forked from it lives. Pools that do not ask
        may still start later.
        """

    def prepare(self) -> None:
        """Set up what the workers share that are about to be forked from this process."""

    def is_in_place(self) -> bool:
        """Return whether this store is the one at its location: nobody deleted or replaced it."""

    def report_set_aside(self, report: Callable[[str], None]) -> None:
        """Report from now on each document that is set aside as unreadable, and why."""

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

    def is_busy(self) -> bool:
        """Return whether a worker of this pool runs a job, a killed worker's command included.

        From now on the end of a job in progress, of any pool, is an arrival.
        """

    def tidy(self) -> None:
        """Remove what killed processes left behind and nobody needs. Raises: StoreError."""


class Claim(Protocol):
    """A job that one worker may run, until it is settled or given back.

    ``worker`` claimed it; it is empty for the only worker of a process.
    """

    worker: str
    job: Job
    attempt: int
    started_at: datetime

    @property
    def pass_fds(self) -> tuple[tuple[int, int], ...]:
        """Return the descriptors that the command inherits: each with its number there.

        They keep the claim beyond its worker for as long as the command runs.
        """


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


class Queue(Protocol):
    """What the workers of one process do: register, claim, settle, and wait for more."""

    poll_seconds: float
    """How often to claim again if no descriptor reports arrivals."""

    def register(self, name: str, now: datetime) -> None:
        """Record a live worker of this process, until that ends or the worker unregisters.

        One that is alone in its process need not be named below. Raises: NameTaken.
        """

    def unregister(self, *workers: str) -> None:
        """Remove the records of workers of this process, if they have one."""

    def claim(self, now: datetime, workers: Sequence[str]) -> list[Claim]:
        """Take the first jobs that are due, one for each of the workers, in their order.

        No other worker can take them then. Jobs come by priority, then due time, then id; none if
        none is due. Fewer jobs than workers do not mean that there are no more: the next call
        returns them, or raises what prevented it. A document that cannot be read is set aside.
        """

    def begin_settle(self, settlements: Sequence[tuple[Claim, Job]]) -> Settlement:
        """Record how claimed jobs ended; finishing the settlement moves each to its state.

        One settlement is finished before the next is begun. Claims for which there is no room
        beside the others are left for the next one.
        Raises: StoreError if none can be recorded; the claims are still held then, and settling
        them again is safe.
        """

    def give_back(self, claim: Claim, due: datetime | None = None) -> None:
        """Put a claimed job back as it was, the attempt not counted, and free the claim.

        It is due as before, or at ``due``. A job that somebody has moved away stays where it is.
        Raises: StoreError; trying again is safe.
        """

    def next_due(self) -> datetime | None:
        """Return when to claim again though nothing arrives, None for never.

        Called after a claim found nothing.
        """

    def arrivals_fd(self) -> int | None:
        """Return a descriptor that is readable when jobs may have arrived, None if there is none.

        Without one the caller asks again after ``poll_seconds``.
        """

    def arrivals_read(self) -> int:
        """Return a number that changes when a claim of this process has read arrivals.

        The descriptor is readable once: other workers of the process then ask again, too.
        """

    def control_fd(self, worker: str = "") -> int | None:
        """Return the descriptor that is readable on requests to a worker, None if there is none.

        Then ``stop_level`` and ``cancel_requested`` are to be asked.
        """

    def cancel_requested(self, claim: Claim) -> bool:
        """Return whether the attempt of a claim is to be cancelled."""

    def stop_level(self, worker: str = "") -> int:
        """Return the request to stop that a worker got directly, not by its supervisor.

        0 is none, 1 a request to take no new job, 2 one to stop now.
        """
