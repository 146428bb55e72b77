"""Keep jobs in a directory: a job is a JSON file, a state a subdirectory, a transition a rename.

The rules that keep every job, which docs/design.md explains:

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
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

from queuectl.clock import utc_now
from queuectl.job import Job, State
from queuectl.store.core import open_core
from queuectl.store.parts import Parts
from queuectl.store.stop_requests import StopRequests
from queuectl.store.values import Entry, Looked, Progress, Slow

if TYPE_CHECKING:
    from queuectl.store.pool import DirectoryPool
    from queuectl.store.purging import Purger
    from queuectl.store.queue import DirectoryQueue


class DirectoryStore:
    """A store in a directory of a local file system: its parts, put together.

    What only some commands need is loaded, and made, when it is first asked for.
    """

    set_aside_in = "corrupt/"

    def __init__(self, location: str, *, create: bool = False, any_format: bool = False) -> None:
        self.core = core = open_core(location, create=create, any_format=any_format)
        self.parts = Parts(core)
        self.location = core.directory.location
        self.log_directory = os.path.join(self.location, "logs")
        self.config = core.settings
        self.workers = core.records
        self.stop_requests = StopRequests(core)
        self.settings = core.settings.current
        self.make = core.directory.make
        self.get = core.lookup.get
        self.resolve = core.lookup.resolve
        self.find = core.lookup.find
        self.ids = core.lookup.ids
        self.entries = core.entries.entries
        self.counts = core.entries.counts

    def now(self) -> datetime:
        """Return the time by the clock of this machine; see Adder.now."""
        return utc_now()

    def close(self) -> None:
        """Free what the store holds open."""
        self.parts.close()
        self.stop_requests.close()
        self.core.registry.close()
        self.core.directory.close()

    @cached_property
    def purging(self) -> "Purger":
        """Return the part that deletes finished jobs."""
        from queuectl.store.purging import Purger

        return Purger(self.core)

    @cached_property
    def pool(self) -> "DirectoryPool":
        """Return the part that a pool of workers needs as a whole."""
        from queuectl.store.pool import DirectoryPool

        return DirectoryPool(self.parts)

    @cached_property
    def queue(self) -> "DirectoryQueue":
        """Return the part that the workers of this process need."""
        from queuectl.store.queue import DirectoryQueue

        return DirectoryQueue(self.parts)

    def add(
        self,
        jobs: Collection[Job],
        *,
        chosen: Collection[str] = (),
        skip_existing: bool = False,
        progress: Progress | None = None,
    ) -> list[str]:
        """Make new jobs durable, then visible in their order; see Store.add."""
        return self.parts.locked_adder.add(
            jobs, chosen=chosen, skip_existing=skip_existing, progress=progress
        )

    def read(self, entry: Entry) -> Job | None:
        """Return the job of an entry; see Store.read."""
        return self.core.documents.read(entry.state, entry.token, entry.id)

    def ends(
        self, job_ids: Collection[str], timeout_seconds: float | None, looked: Looked | None = None
    ) -> Iterator[Job]:
        """Yield jobs as they end; see Store.ends."""
        return self.parts.waiter.ends(job_ids, timeout_seconds, looked)

    def retry(self, job_id: str, states: Collection[State], now: datetime) -> Job:
        """Send a job back to pending; see Store.retry."""
        return self.parts.retrier.retry(job_id, states, now)

    def cancel(
        self, job_ids: Sequence[str], slow: Slow | None = None
    ) -> Iterator[tuple[str, State | None]]:
        """Cancel jobs; see Store.cancel."""
        return self.parts.canceller.cancel(job_ids, slow)
