"""The workers of this process: their records, and what they are asked to do."""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from types import MappingProxyType

from queuectl.errors import NameTaken
from queuectl.job import Attempt
from queuectl.store import files
from queuectl.store.channel import STOP, STOP_NOW, channel_name, open_channel
from queuectl.store.files import store_errors
from queuectl.store.layout import StoreDirectory
from queuectl.store.local_worker import LocalWorker
from queuectl.store.names import filed_name
from queuectl.store.records import WorkerRecords
from queuectl.store.tally import counted
from queuectl.store.totals import Totals
from queuectl.store.values import Tally
from queuectl.store.worker_protocol import Claim

_POOL_LOCK_NAME = "pool.lock"
_PATIENCE_SECONDS = 2.0
_LOOK_SECONDS = 0.02


class WorkerRegistry:
    """The workers of this process, and the pool that they belong to."""

    def __init__(self, directory: StoreDirectory, records: WorkerRecords, totals: Totals) -> None:
        self._dir = directory
        self._records = records
        self._totals = totals
        self._local: Mapping[str, LocalWorker] = MappingProxyType({})
        self.pool = ""  # what the records of all workers of a pool hold, and no others
        self._pool_lock_fd = -1

    def close(self) -> None:
        """Free what is held open; a record that is not held any more is stale."""
        for worker in self._local.values():
            worker.close()
        self._local = {}
        if self._pool_lock_fd >= 0:
            os.close(self._pool_lock_fd)
            self._pool_lock_fd = -1

    # --- pools ---

    def reserve_pool(self) -> bool:
        """Keep pool.lock locked for a pool that is to be the only one; see Pool.reserve."""
        fd = self._dir.open_lock_file(_POOL_LOCK_NAME)
        until = time.monotonic() + _PATIENCE_SECONDS
        # The lock is for two that start together: neither has workers yet. A pool that is about to
        # end holds it, too, and has no worker any more: then it is waited for.
        while (
            not (is_locked := files.lock(fd))
            and not self._records.live()
            and time.monotonic() < until
        ):
            time.sleep(_LOOK_SECONDS)
        if not is_locked or self._records.live():
            os.close(fd)
            return False
        self._pool_lock_fd = fd
        return True

    def pool_is_busy(self) -> bool:
        """Return whether a worker of this pool, a killed one included, has a job in progress."""
        return any(
            record.pool == self.pool and self._records.is_in_progress(record)
            for record, _, _ in self._records.all()
        )

    # --- the workers of this process ---

    def register(self, name: str, now: datetime) -> None:
        """Write a worker's record and keep it locked; see Queue.register."""
        worker, filed = LocalWorker(name, self.pool, now), filed_name(name)
        path = f"{self._dir.location}/workers/{filed}"
        with self._totals.locked(), store_errors(f"{path} cannot be written"):
            # RACE: two may choose one name at the same time, and whoever tidies must not take what
            # is made here for what a killed worker left; see test_names.py.
            if name in self._totals.read()[1] or any(
                self._dir.exists("workers", each) for each in (filed, channel_name(name))
            ):
                raise NameTaken(f"another worker is called {name}")
            worker.fd = self._dir.replace(worker.text(), "workers", filed, sync=False)
            self._local = {**self._local, name: worker}
            # After the record: without one it is what a killed worker left behind.
            worker.control_fd = open_channel(self._dir.fd("workers"), name)

    def unregister(self, *workers: str) -> None:
        """Remove workers' records; see Queue.unregister."""
        leaving = [worker for each in workers or ("",) if (worker := self.local(each)) is not None]
        self._totals.add({worker.name: worker.tally for worker in leaving})
        for worker in leaving:
            for name in (filed_name(worker.name), channel_name(worker.name)):
                with suppress(OSError):  # somebody was faster, or the next worker tidies it away
                    os.unlink(name, dir_fd=self._dir.fd("workers"))
            worker.close()
        gone = {worker.name for worker in leaving}
        self._local = {name: each for name, each in self._local.items() if name not in gone}

    def local(self, name: str) -> LocalWorker | None:
        """Return a worker of this process; one that is alone need not be named."""
        worker = self._local.get(name)
        if worker is None and not name and len(self._local) == 1:
            return next(iter(self._local.values()))
        return worker

    def control_fd(self, worker: str = "") -> int | None:
        """Return the descriptor that is readable on requests; see Queue.control_fd."""
        local = self.local(worker)
        return None if local is None else local.control_fd

    def cancel_requested(self, claim: Claim) -> bool:
        """Return whether an attempt is to be ended; see Queue.cancel_requested."""
        worker = self.local(claim.worker)
        if worker is None:
            return False
        # A request for another attempt came too late: that one has ended by itself.
        wanted = f"{claim.job.id}.{claim.attempt}"
        worker.requests = worker.receive() & {wanted, STOP, STOP_NOW}
        return wanted in worker.requests

    def stop_level(self, worker: str = "") -> int:
        """Return what has come to a worker past its supervisor; see Queue.stop_level."""
        local = self.local(worker)
        requests = frozenset() if local is None else local.receive()
        return 2 if STOP_NOW in requests else int(STOP in requests)

    def note(self, name: str, runs: tuple[str, int] | None, since: datetime) -> None:
        """Note in the record of a worker what it runs since when; None for nothing."""
        worker = self.local(name)
        if worker is not None:
            worker.note(runs, since)

    def count(self, attempts: Sequence[Attempt]) -> None:
        """Count attempts that are settled, each for its worker, and note which workers are idle.

        What others ran, and this process has recovered, counts for one of its workers, too.
        """
        one = next(iter(self._local.values()), None)
        by_worker: dict[LocalWorker | None, list[Attempt]] = {}
        for attempt in attempts:
            by_worker.setdefault(self._local.get(attempt.worker, one), []).append(attempt)
        for worker, its in by_worker.items():
            if worker is None:  # a supervisor that has recovered what a worker lost
                self._totals.add({"": counted(Tally(), its, time.time())})
            else:
                worker.count(its)
