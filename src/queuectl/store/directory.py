"""Keep jobs in a directory: a job is a JSON file, a state a subdirectory, a transition a rename.

The rules that comments name by number are those of docs/design.md: 1 one place, 2 lock, then look,
3 a claim is a lock and a rename, 4 the command holds the lock, 5 record, then move, 6 durable
before it is announced, 7 moves back hold pending.lock, 8 who can lock a running job settles it.
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
        self.now = utc_now

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
