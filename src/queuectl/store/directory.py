"""Keep jobs in a directory: a job is a JSON file, a state a subdirectory, a transition a rename.

The rules that keep every job:

1. One place. At every instant, and after a crash at any instant, a job is in one state directory.
2. Whoever holds the lock moves the job. The lock is the kernel's, on the document itself: open it,
   lock it without waiting, check that the path still names what was locked, then act.
3. A claim is that lock and one rename from pending/ to processing/. Who loses a race finds the lock
   held or the name gone, and takes the next name.
4. The command inherits the lock. The kernel frees it when worker and command are gone, and no
   sooner: no heartbeat, no lease, no clock.
5. Record, then move. An attempt is settled by putting the new document, durable and locked, in the
   place of the one in processing/, and then moving it to its state. A document whose history holds
   the attempt that its name tells is ahead of its directory, and recovery rolls it forward; one
   whose history does not was cut off. Elsewhere the directory wins.
6. Durable before acknowledged. Every document is written in tmp/, synced and renamed, and an id is
   told only when the directory is synced, too.
7. Jobs only come into pending/ under a chosen or returning id while pending.lock is held. A look
   for an id under it goes through the states in the order in which jobs move, and misses none.
8. Recovery. Whoever can take the lock of a document in processing/ settles it, unless a process
   was started as the command of its attempt: one may have closed the lock that it inherited.
"""

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from queuectl.config import Settings
from queuectl.job import Job, State
from queuectl.store import files
from queuectl.store.base import (
    Claim,
    Counts,
    Decide,
    Entry,
    Looked,
    ParentNames,
    Progress,
    RecoveryReport,
    Slow,
    Tally,
    WorkerRecord,
)
from queuectl.store.core import open_core
from queuectl.store.stop_requests import StopFile, StopRequests

if TYPE_CHECKING:
    from queuectl.store.adopting import Adopter, WaitingDocuments
    from queuectl.store.cancelling import Canceller
    from queuectl.store.claiming import Claimer
    from queuectl.store.dependencies import Dependencies
    from queuectl.store.orphans import Orphans
    from queuectl.store.purging import Purger
    from queuectl.store.recovery import Recovery
    from queuectl.store.scan import PendingScan
    from queuectl.store.settling import Settlement, Settler
    from queuectl.store.submitting import Submitter
    from queuectl.store.waiting import Waiter


class DirectoryStore:
    """A store in a directory of a local file system: its parts, put together.

    What only some commands need is loaded, and made, when it is first asked for.
    """

    poll_seconds = 0.25

    def __init__(self, location: str, *, create: bool = False, any_format: bool = False) -> None:
        """Open the store; raises as opening a StoreDirectory does."""
        self.core = open_core(location, create=create, any_format=any_format)
        self.location = self.core.directory.location
        self._stop_requests = StopRequests(self.core)

    def close(self) -> None:
        """Free what the store holds open."""
        for part in ("scan", "_settler"):
            if part in self.__dict__:  # it was made
                getattr(self, part).close()
        self._stop_requests.close()
        self.core.registry.close()
        self.core.directory.close()

    # --- parts that are made on demand ---

    @cached_property
    def dependencies(self) -> "Dependencies":
        """Return what places and releases blocked jobs."""
        from queuectl.store.dependencies import Dependencies

        return Dependencies(self.core)

    @cached_property
    def _submitter(self) -> "Submitter":
        from queuectl.store.submitting import Submitter

        return Submitter(self.core, lambda: self.dependencies)

    @cached_property
    def _waiter(self) -> "Waiter":
        from queuectl.store.waiting import Waiter

        return Waiter(self.core)

    @cached_property
    def purger(self) -> "Purger":
        """Return what deletes finished jobs."""
        from queuectl.store.purging import Purger

        return Purger(self.core, self.dependencies)

    @cached_property
    def scan(self) -> "PendingScan":
        """Return what finds the next pending job."""
        from queuectl.store.scan import PendingScan

        return PendingScan(self.core.directory)

    @cached_property
    def _waiting_documents(self) -> "WaitingDocuments":
        from queuectl.store.adopting import WaitingDocuments

        return WaitingDocuments(self.core, self.scan)

    @cached_property
    def _adopter(self) -> "Adopter":
        from queuectl.store.adopting import Adopter

        return Adopter(self.core, self.scan, self._waiting_documents)

    @cached_property
    def _claimer(self) -> "Claimer":
        from queuectl.store.claiming import Claimer
        from queuectl.store.setback import SetBack

        return Claimer(
            self.core, self.scan, self._waiting_documents, self._adopter, SetBack(self.core)
        )

    @cached_property
    def _settler(self) -> "Settler":
        from queuectl.store.settling import Settler

        return Settler(self.core, self.dependencies)

    @cached_property
    def _orphans(self) -> "Orphans":
        from queuectl.store.orphans import Orphans

        return Orphans(self.core)

    @cached_property
    def recovery(self) -> "Recovery":
        """Return what settles the claims of processes that are gone."""
        from queuectl.store.recovery import Recovery

        return Recovery(self.core, self.dependencies, self._settler, self._orphans)

    @cached_property
    def _canceller(self) -> "Canceller":
        from queuectl.store.cancelling import Canceller

        return Canceller(self.core, self.dependencies, self._orphans, self.recovery, self._adopter)

    # --- what people and scripts do ---

    def make(self) -> None:
        """Make what is missing; see Adder.make."""
        self.core.directory.make()

    def add_new(self, jobs: Collection[Job], progress: Progress | None = None) -> list[str]:
        """Add jobs that wait for no other and whose ids nobody chose; see Store.add."""
        return self._submitter.add(jobs, progress=progress)

    def add(
        self,
        jobs: Collection[Job],
        *,
        chosen: Collection[str] = (),
        skip_existing: bool = False,
        progress: Progress | None = None,
    ) -> list[str]:
        """Make new jobs durable, then visible in their order; see Store.add."""
        return self._submitter.add(
            jobs, chosen=chosen, skip_existing=skip_existing, progress=progress
        )

    def get(self, job_id: str) -> Job:
        """Return a job; see Store.get."""
        return self.core.lookup.get(job_id)

    def resolve(self, prefix: str) -> Entry:
        """Return where the job of an id or a prefix is; see Store.resolve."""
        return self.core.lookup.resolve(prefix)

    def entries(self, state: State, now: datetime, limit: int | None = None) -> list[Entry]:
        """Return what is known of the jobs in a state; see Store.entries."""
        return self.core.entries.entries(state, now, limit)

    def all_entries(self, state: State, now: datetime) -> Collection[Entry]:
        """Return the same of all jobs in a state; see Store.all_entries."""
        return self.core.entries.all_entries(state, now)

    def read(self, entry: Entry) -> Job | None:
        """Return the job of an entry; see Store.read."""
        return self.core.documents.read(entry.state, entry.token, entry.id)

    def find(self, job_ids: Collection[str]) -> dict[str, Entry]:
        """Return where jobs are; see Store.find."""
        return self.core.lookup.find(job_ids)

    def ends(
        self,
        job_ids: Collection[str],
        timeout_seconds: float | None,
        looked: Looked | None = None,
    ) -> Iterator[Job]:
        """Yield jobs as they end; see Store.ends."""
        return self._waiter.ends(job_ids, timeout_seconds, looked)

    def ids(self, state: State, prefix: str = "") -> Iterator[str]:
        """Stream the ids in a state; see Store.ids."""
        return self.core.lookup.ids(state, prefix)

    def counts(self, now: datetime) -> Counts:
        """Count the jobs; see Store.counts."""
        return self.core.entries.counts(now)

    def tally(self) -> Tally:
        """Return what all workers have counted; see Store.tally."""
        return self.core.registry.tally()

    def ended_lately(self) -> int:
        """Return how many attempts ended in the last minute; see Store.ended_lately."""
        return self.core.registry.ended_lately()

    def retry(self, job_id: str, states: Collection[State], now: datetime) -> Job:
        """Send a job back to pending; see Store.retry."""
        return self._submitter.retry(job_id, states, now)

    def cancel(
        self, job_ids: Sequence[str], slow: Slow | None = None
    ) -> Iterator[tuple[str, State | None]]:
        """Cancel jobs; see Store.cancel."""
        return self._canceller.cancel(job_ids, slow)

    def look_at_parents(self, seen: ParentNames) -> Iterator[None]:
        """Learn which jobs blocked jobs wait for; see Store.look_at_parents."""
        return self.dependencies.look_at_parents(seen)

    def parents_held(self, seen: ParentNames) -> AbstractContextManager[Collection[str]]:
        """Keep jobs from beginning to wait for others; see Store.parents_held."""
        return self.purger.parents_held(seen)

    def finished(self, state: State) -> Iterator[Entry]:
        """Stream the jobs of a finished state; see Store.finished."""
        return self.purger.finished(state)

    def hold(self, job_id: str) -> AbstractContextManager[bool]:
        """Keep a finished job where it is; see Store.hold."""
        return self.purger.hold(job_id)

    def hold_unused(self, ids: AbstractSet[str]) -> AbstractContextManager[Collection[str]]:
        """Keep ids that no job has from being given to one; see Store.hold_unused."""
        return self.purger.hold_unused(ids)

    def purge(
        self,
        job_id: str,
        state: State,
        *,
        forget: Callable[[Job], object] | None = None,
        unchanged_since: datetime | None = None,
    ) -> bool:
        """Delete a finished job; see Store.purge."""
        return self.purger.purge(job_id, state, forget=forget, unchanged_since=unchanged_since)

    def read_config(self) -> dict[str, Any]:
        """Return what was set; see Store.read_config."""
        return self.core.settings.read()

    def change_config(self, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Apply a change to what was set; see Store.change_config."""
        self.core.settings.change(change)

    def settings(self) -> Settings:
        """Return the settings; see Store.settings."""
        return self.core.settings.current()

    # --- what pools and workers do ---

    @property
    def on_set_aside(self) -> Callable[[str], None] | None:
        """Return what is called with what was set aside, and why."""
        return self.core.documents.on_set_aside

    @on_set_aside.setter
    def on_set_aside(self, call: Callable[[str], None] | None) -> None:
        self.core.documents.on_set_aside = call

    def check_pool(self) -> None:
        """Check that a command can inherit its lock (rule 4); see Store.check_pool."""
        from queuectl.store.held_claim import check_descriptors

        check_descriptors()

    def reserve_pool(self) -> bool:
        """Reserve the store for one pool; see Store.reserve_pool."""
        return self.core.registry.reserve_pool()

    def prepare_pool(self) -> None:
        """Set up what the workers share; see Store.prepare_pool."""
        self.core.registry.name_pool()
        self.core.lock.wait_in_kernel()
        files.load_library()  # once for all that are forked

    def is_in_place(self) -> bool:
        """Return whether this store is the one at its path; see Store.is_in_place."""
        return self.core.directory.is_in_place()

    def register(self, name: str, now: datetime) -> None:
        """Record a live worker; see Store.register."""
        self.core.registry.register(name, now)

    def unregister(self, *workers: str) -> None:
        """Remove the records of workers; see Store.unregister."""
        self.core.registry.unregister(*workers)

    def workers(self) -> list[WorkerRecord]:
        """Return the live workers; see Store.workers."""
        return self.core.registry.workers()

    def tidy(self) -> None:
        """Remove what killed processes left behind; see Store.tidy."""
        self.core.registry.tidy()

    def purge_turn(self, period_seconds: float) -> AbstractContextManager[bool]:
        """Take the turn to purge; see Store.purge_turn."""
        return self.purger.purge_turn(period_seconds)

    def claim_each(self, now: datetime, workers: Sequence[str]) -> list[Claim]:
        """Take the first due jobs, one for each worker; see Store.claim_each."""
        return self._claimer.claim_each(now, workers)

    def control_fd(self, worker: str = "") -> int | None:
        """Return the descriptor that is readable on requests; see Store.control_fd."""
        return self.core.registry.control_fd(worker)

    def cancel_requested(self, claim: Claim) -> bool:
        """Return whether an attempt is to be ended; see Store.cancel_requested."""
        return self.core.registry.cancel_requested(claim.worker, claim.job.id, claim.attempt)

    def begin_settle(self, settlements: Sequence[tuple[Claim, Job]]) -> "Settlement":
        """Record how claimed jobs ended; see Store.begin_settle."""
        return self._settler.begin(settlements)

    def settle(self, settlements: Sequence[tuple[Claim, Job]]) -> None:
        """Settle claimed jobs at once; see Store.settle."""
        self._settler.settle(settlements)

    def give_back(self, claim: Claim, due: datetime | None = None) -> None:
        """Put a claimed job back as it was; see Store.give_back."""
        self._settler.give_back(claim, due)

    def recover(self, decide: Decide, *, only_lost: bool = False) -> RecoveryReport:
        """Settle the claims whose worker and command are gone; see Store.recover."""
        return self.recovery.recover(decide, only_lost=only_lost)

    def release_blocked(self) -> bool:
        """Release blocked jobs whose parents' ends were missed; see Store.release_blocked."""
        return any(True for _ in self.core.index.parents()) and self.dependencies.sweep()

    def running(self) -> bool:
        """Return whether a worker of this pool runs a job; see Store.running."""
        self.scan.watch.add_departures(os.path.join(self.location, State.PROCESSING))
        is_busy = self.core.registry.pool_is_busy()
        if not is_busy and self.scan.watch.fd is None:
            self.scan.invalidate()  # the next claim may be the last one, and must miss nothing
        return is_busy

    def next_due(self) -> datetime | None:
        """Return when to claim again though nothing arrives; see Store.next_due."""
        return self.scan.next_due()

    def arrivals_fd(self) -> int | None:
        """Return the descriptor that is readable on arrivals; see Store.arrivals_fd."""
        return self.scan.watch.fd

    def arrivals_heard(self) -> int:
        """Return what changes when a claim hears of arrivals; see Store.arrivals_heard."""
        return self.scan.watch.reads

    def request_stop(self, *, now: bool) -> StopFile:
        """Ask all live workers to stop; see Store.request_stop."""
        return self._stop_requests.request(now=now)

    def stop_request(self) -> StopFile | None:
        """Return the last request to stop; see Store.stop_request."""
        return self._stop_requests.last()

    def stop_level(self, worker: str = "") -> int:
        """Return what has come to a worker past its supervisor; see Store.stop_level."""
        return self.core.registry.stop_level(worker)

    def stop_fd(self) -> int | None:
        """Return the descriptor that is readable on requests to stop; see Store.stop_fd."""
        return self._stop_requests.fd()
